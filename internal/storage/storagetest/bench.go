package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// RowSize is how many bytes benchmarks put: a usual encrypted row.
const RowSize = 1300

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

// BenchPut puts rows, each durable before the writer goes on: alone, after reading
// what it replaces, and by bare, the server's own way to put a row.
func BenchPut(b *testing.B, e storage.Engine, bare func(key string, value []byte) error) {
	ctx, value := context.Background(), make([]byte, RowSize)
	var runs atomic.Int64
	for _, writers := range []int{1, 128} {
		for name, put := range map[string]func(key string) error{
			"bare": func(key string) error { return bare(key, value) },
			"engine": func(key string) error {
				_, err := e.Update(ctx, func(t storage.Txn) error { return t.Put(key, value) })
				return err
			},
			"engine-read-write": func(key string) error {
				_, err := e.Update(ctx, func(t storage.Txn) error {
					if _, err := t.Get(key); err != nil && !errors.Is(err, storage.ErrNotFound) {
						return err
					}
					return t.Put(key, value)
				})
				return err
			},
		} {
			b.Run(fmt.Sprintf("%s/writers=%d", name, writers), func(b *testing.B) {
				run := runs.Add(1)
				share(b, writers, func(i int64) error { return put(fmt.Sprintf("bench/%d/%08d", run, i)) })
			})
		}
	}
}

// BenchGet reads one row per View.
func BenchGet(b *testing.B, e storage.Engine) {
	ctx := context.Background()
	if _, err := e.Update(ctx, func(t storage.Txn) error { return t.Put("k", make([]byte, RowSize)) }); err != nil {
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

// BenchWatch measures from before the commit on one node to the watch on another.
func BenchWatch(b *testing.B, writer, reader storage.Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	from := Head(b, reader)
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
