package audit

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAppend reports durable and relaxed appends for 1, 32 and 128
// appenders at a time.
func BenchmarkAppend(b *testing.B) {
	for _, relaxed := range []bool{false, true} {
		for _, people := range []int{1, 32, 128} {
			name := "durable"
			if relaxed {
				name = "relaxed"
			}
			b.Run(fmt.Sprintf("%s/%d", name, people), func(b *testing.B) {
				l := openLog(b, b.TempDir(), Options{Signer: testSigner(b), Ahead: 4 << 20})
				appendOne := l.Append
				if relaxed {
					appendOne = l.AppendRelaxed
				}
				var next atomic.Int64
				var wait sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				for range people {
					wait.Go(func() {
						e := outcome(1)
						for next.Add(1) <= int64(b.N) {
							e.Time = time.Time{}
							if err := appendOne(context.Background(), e); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wait.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
				if s := l.Stats(); s.Sync.Count > 0 {
					b.ReportMetric(float64(b.N)/float64(s.Sync.Count), "entries/sync")
				}
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := outcome(1)
	e.Time = time.Now()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = appendBody(buf[:0], e)
	}
	b.SetBytes(int64(len(buf)))
}

// million makes a log of n entries.
func million(b testing.TB, n int) string {
	dir := b.TempDir()
	l := openLog(b, dir, Options{Signer: testSigner(b), Ahead: 4 << 20})
	var wait sync.WaitGroup
	for range 128 {
		wait.Go(func() {
			for i := range n / 128 {
				if err := l.AppendRelaxed(context.Background(), outcome(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	closeLog(b, l)
	return dir
}

// BenchmarkMillion opens and verifies a log of a million entries.
func BenchmarkMillion(b *testing.B) {
	dir := million(b, 1<<20)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			closeLog(b, openLog(b, dir, Options{Signer: testSigner(b)}))
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			wantWhole(b, dir, 1<<20)
		}
	})
	b.Run("rebuild", func(b *testing.B) {
		for b.Loop() {
			if err := os.Remove(file(dir, hashesName)); err != nil {
				b.Fatal(err)
			}
			closeLog(b, openLog(b, dir, Options{Signer: testSigner(b)}))
		}
	})
}
