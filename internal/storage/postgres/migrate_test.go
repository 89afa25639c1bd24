package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

// later are migrations that a later version could have.
func later(readableBy ...int) []migration {
	all := append([]migration(nil), migrations...)
	for i, r := range readableBy {
		all = append(all, migration{readableBy: r, statements: func(prefix string) []string {
			return []string{fmt.Sprintf("ALTER TABLE %s_rows ADD COLUMN new%d integer", prefix, i)}
		}})
	}
	return all
}

// TestMigrate: a store is brought from every format to every later one, by nodes
// that start at the same time and beside one that goes on; what is in it stays.
func TestMigrate(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	last := len(migrations) + 2
	for from := range last {
		for to := from + 1; to <= last; to++ {
			url := server.Database(t)
			steps := later(1, 2)
			var old storage.Engine
			if from > 0 {
				old = node(t, Options{URL: url, MaxParallel: 2, migrations: steps[:from]})
				put(t, old, "k", "old")
			}
			var nodes sync.WaitGroup
			for id := range 3 {
				nodes.Go(func() {
					e, err := open(context.Background(), Options{URL: url, MaxParallel: 2, Logger: quiet, migrations: steps[:to]})
					if err != nil {
						t.Errorf("from %d to %d: %v", from, to, err)
						return
					}
					put(t, e, fmt.Sprintf("new/%d", id), "new")
					if err := e.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			nodes.Wait()
			if from > 0 {
				put(t, old, "k2", "the release before goes on")
			}
			e := node(t, Options{URL: url, MaxParallel: 2, migrations: steps[:to]})
			var have int
			if err := e.(*Engine).pool.QueryRow(context.Background(), "SELECT format FROM coffer_head").Scan(&have); err != nil || have != to {
				t.Errorf("from %d to %d: format %d, %v", from, to, have, err)
			}
			if got := get(t, e, "k"); from > 0 && got != "old" {
				t.Errorf("from %d to %d: %q", from, to, got)
			}
		}
	}
}

// TestReleaseBefore: a store that a newer version has migrated is opened by the
// versions that it says can use it, and refused by older ones.
func TestReleaseBefore(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	steps := later(1, 2)
	url := server.Database(t)
	node(t, Options{URL: url, migrations: steps[:2]})
	node(t, Options{URL: url, migrations: steps[:1]})
	node(t, Options{URL: url, migrations: steps})
	node(t, Options{URL: url, migrations: steps[:2]})
	_, err := open(context.Background(), Options{URL: url, Logger: quiet, migrations: steps[:1]})
	if err == nil || !strings.Contains(err.Error(), "format 3") || !strings.Contains(err.Error(), "run the newer Coffer") {
		t.Errorf("two releases apart: %v", err)
	}
}
