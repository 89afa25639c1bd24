package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Long runs an Update of the first node that reads many rows, some of which others
// change all the time, on every node: each of its runs is in vain unless the
// engine makes room for it. It must end within bound.
func Long(t *testing.T, nodes []storage.Engine, rows int, bound time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var others sync.WaitGroup
	var commits atomic.Int64
	for id := range 2 * len(nodes) {
		others.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, err := nodes[id%len(nodes)].Update(context.Background(), func(tx storage.Txn) error {
					return tx.Put(fmt.Sprint("other/", id), fmt.Append(nil, n))
				})
				if err != nil {
					t.Error(err)
				}
				commits.Add(1)
			}
		})
	}
	defer others.Wait()
	defer cancel()
	for range Rounds(1) {
		runs, before, start := 0, commits.Load(), time.Now()
		_, err := nodes[0].Update(t.Context(), func(tx storage.Txn) error {
			runs++
			if _, err := tx.Get("other/0"); err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			if _, err := tx.Scan("other/", "", 2*len(nodes)); err != nil {
				return err
			}
			for i := range rows {
				if _, err := tx.Get(fmt.Sprint("absent/", i)); !errors.Is(err, storage.ErrNotFound) {
					return fmt.Errorf("a row that nobody wrote: %w", err)
				}
			}
			return tx.Put("long", []byte("1"))
		})
		took := time.Since(start)
		t.Logf("an Update that reads %d rows: %d runs in %v, while others committed %d times", rows, runs, took.Round(time.Millisecond), commits.Load()-before)
		if err != nil || runs < 2 || took > bound {
			t.Errorf("it ended after %v, run %d times: %v", took, runs, err)
		}
	}
}
