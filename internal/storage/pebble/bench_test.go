package pebble

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cofferhq/coffer/internal/storage"
)

const rowSize = 1300 // bytes of a usual encrypted row

func openBench(b *testing.B) *Engine {
	b.Helper()
	e, err := Open(context.Background(), Options{Path: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	})
	return e
}

// fill puts n rows named by key.
func fill(b *testing.B, e *Engine, n int, key func(i int) string) {
	b.Helper()
	value := make([]byte, rowSize)
	for i := 0; i < n; {
		_, err := e.Update(context.Background(), func(t storage.Txn) error {
			for range storage.MaxUpdateKeys {
				if i == n {
					return nil
				}
				if err := t.Put(key(i), value); err != nil {
					return err
				}
				i++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut puts rows, each durable before the writer goes on. syncs/put
// says how far writers share syncs.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 128} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			e := openBench(b)
			value := make([]byte, rowSize)
			var next atomic.Int64
			var wg sync.WaitGroup
			before := e.Stats().Syncs.Count
			b.ReportAllocs()
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						_, err := e.Update(context.Background(), func(t storage.Txn) error {
							return t.Put(fmt.Sprintf("bench/%08d", i), value)
						})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(e.Stats().Syncs.Count-before)/float64(b.N), "syncs/put")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}

// BenchmarkGet reads one row per View.
func BenchmarkGet(b *testing.B) {
	const rows = 50_000
	e := openBench(b)
	fill(b, e, rows, func(i int) string { return fmt.Sprintf("bench/%08d", i) })
	for _, rows := range []int{100, rows} { // in the cache, and mostly not
		keys := make([]string, rows)
		for i := range keys {
			keys[i] = fmt.Sprintf("bench/%08d", i*7919%rows)
		}
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					err := e.View(context.Background(), func(r storage.Reader) error {
						_, err := r.Get(keys[i%rows])
						return err
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkList lists 100 names, each with many keys below it.
func BenchmarkList(b *testing.B) {
	const rows = 50_000
	e := openBench(b)
	fill(b, e, rows, func(i int) string { return fmt.Sprintf("bench/%03d/%08d", i%100, i) })
	b.ReportAllocs()
	for b.Loop() {
		err := e.View(context.Background(), func(r storage.Reader) error {
			names, err := r.List("bench/", "", 1000)
			if len(names) != 100 {
				b.Fatalf("%d names", len(names))
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
