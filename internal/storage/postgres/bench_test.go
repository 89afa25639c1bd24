package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

const rowSize = 1300 // bytes of a usual encrypted row

// share calls fn b.N times from n goroutines.
func share(b *testing.B, n int, fn func(i int64) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := fn(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkPut puts rows, each durable before the writer goes on: alone, after
// reading what it replaces, and as bare statements on the same server.
func BenchmarkPut(b *testing.B) {
	server := postgrestest.Start(b)
	url := server.Database(b)
	ctx := context.Background()
	value := make([]byte, rowSize)
	server.Exec(b, database(b, url), "CREATE TABLE bare (key bytea PRIMARY KEY, value bytea NOT NULL)")
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns = 128
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	e := node(b, Options{URL: url})
	for _, writers := range []int{1, 128} {
		b.Run(fmt.Sprintf("bare/writers=%d", writers), func(b *testing.B) {
			share(b, writers, func(i int64) error {
				_, err := pool.Exec(ctx, "INSERT INTO bare VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", fmt.Appendf(nil, "bench/%08d", i), value)
				return err
			})
		})
		b.Run(fmt.Sprintf("engine/writers=%d", writers), func(b *testing.B) {
			share(b, writers, func(i int64) error {
				_, err := e.Update(ctx, func(t storage.Txn) error { return t.Put(fmt.Sprintf("bench/%08d", i), value) })
				return err
			})
		})
		b.Run(fmt.Sprintf("engine-read-write/writers=%d", writers), func(b *testing.B) {
			share(b, writers, func(i int64) error {
				_, err := e.Update(ctx, func(t storage.Txn) error {
					key := fmt.Sprintf("bench/%08d", i)
					if _, err := t.Get(key); err != nil && err != storage.ErrNotFound {
						return err
					}
					return t.Put(key, value)
				})
				return err
			})
		})
	}
}

// BenchmarkGet reads one row per View.
func BenchmarkGet(b *testing.B) {
	e := node(b, Options{URL: postgrestest.Start(b).Database(b)})
	ctx := context.Background()
	if _, err := e.Update(ctx, func(t storage.Txn) error { return t.Put("k", make([]byte, rowSize)) }); err != nil {
		b.Fatal(err)
	}
	for _, readers := range []int{1, 16} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			share(b, readers, func(int64) error {
				return e.View(ctx, func(r storage.Reader) error { _, err := r.Get("k"); return err })
			})
		})
	}
}

// BenchmarkWatch measures from before the commit on one node to the watch on
// another.
func BenchmarkWatch(b *testing.B) {
	url := postgrestest.Start(b).Database(b)
	writer, reader := node(b, Options{URL: url}), node(b, Options{URL: url})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	from := head(b, reader)
	arrived := make(chan time.Time, 1)
	done := make(chan error, 1)
	go func() {
		done <- reader.Watch(ctx, "k", from, func(c storage.Commit) error {
			if len(c.Changes) > 0 {
				arrived <- time.Now()
			}
			return nil
		})
	}()
	var took, after []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := writer.Update(ctx, func(t storage.Txn) error { return t.Put("k", nil) }); err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		at := <-arrived
		took, after = append(took, at.Sub(start)), append(after, at.Sub(committed))
	}
	cancel()
	<-done
	slices.Sort(took)
	slices.Sort(after)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
	b.ReportMetric(float64(after[len(after)/2].Microseconds()), "p50-after-commit-µs")
}
