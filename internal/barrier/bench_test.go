package barrier_test

import (
	"context"
	"testing"

	"github.com/cofferhq/coffer/internal/storage"
)

func BenchmarkSeal1KiB(b *testing.B) {
	bar, _, _ := opened(b)
	value := make([]byte, 1<<10)
	b.SetBytes(1 << 10)
	b.ReportAllocs()
	for b.Loop() {
		_, err := bar.Update(context.Background(), func(t storage.Txn) error { return t.Put("x", value) })
		must(b, err)
	}
}

func BenchmarkOpen1KiB(b *testing.B) {
	bar, _, _ := opened(b)
	put(b, bar, "x", string(make([]byte, 1<<10)))
	b.SetBytes(1 << 10)
	b.ReportAllocs()
	must(b, bar.View(context.Background(), func(r storage.Reader) error {
		for b.Loop() {
			if _, err := r.Get("x"); err != nil {
				return err
			}
		}
		return nil
	}))
}

func BenchmarkCacheGet(b *testing.B) {
	bar, _, _ := opened(b)
	c := cached(b, bar, 1000)
	put(b, bar, "c/x", "v")
	warm(b, c, "c/x")
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := c.Get(context.Background(), "c/x"); err != nil {
				b.Error(err)
			}
		}
	})
}
