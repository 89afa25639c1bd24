package storagetest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Writers has many writers at once add one to the same key, spread over nodes. All
// must end, none undone by another, after no more than so many runs of their
// functions each, on the average.
func Writers(t *testing.T, nodes []storage.Engine, writers, runsEach int) {
	var wg sync.WaitGroup
	var runs atomic.Int64
	start := time.Now()
	for id := range writers {
		wg.Go(func() {
			_, err := nodes[id%len(nodes)].Update(context.Background(), func(tx storage.Txn) error {
				runs.Add(1)
				text, err := Value(tx, "n")
				n, _ := strconv.Atoi(text) // "" is 0
				return errors.Join(err, tx.Put("n", []byte(strconv.Itoa(n+1))))
			})
			if err != nil {
				t.Errorf("writer %d: %v", id, err)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	err := nodes[0].View(context.Background(), func(r storage.Reader) error {
		got, err := Value(r, "n")
		if err == nil && got != strconv.Itoa(writers) {
			t.Errorf("%d increments made %s", writers, got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("check-and-set writers of one key: %d, ended in %v, runs of their functions: %d", writers, took.Round(time.Millisecond), runs.Load())
	if runs.Load() > int64(runsEach*writers) {
		t.Errorf("the functions ran %d times", runs.Load())
	}
}
