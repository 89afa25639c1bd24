package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/storage"
)

// Writers move amounts between accounts all over the key space while backups are
// taken, read quickly and slowly. In every archive the sum is what it always is,
// and no writer is held up by a reader that stands still.
func TestConsistentUnderWriters(t *testing.T) {
	for name, make := range engines {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, make(t))
			s.fill(t, 200, 30_000)
			accounts := s.openAccounts(t)
			stop := atomic.Bool{}
			var moves atomic.Int64
			var work errgroup.Group
			for range 4 {
				work.Go(func() error {
					for !stop.Load() {
						if err := s.move(accounts); err != nil {
							return err
						}
						moves.Add(1)
						time.Sleep(time.Millisecond) // a snapshot of the engine in memory is copied by each
					}
					return nil
				})
			}
			n := 0
			for deadline := time.Now().Add(2 * time.Second * time.Duration(soak())); time.Now().Before(deadline); n++ {
				var out bytes.Buffer
				before := moves.Load()
				w := &slow{w: &out, pause: []time.Duration{0, 5 * time.Millisecond, 25 * time.Millisecond}[n%3]}
				_, err := backup.Write(t.Context(), s.barrier, from, w, nil)
				must(t, err)
				if w.pause > 0 && moves.Load() == before {
					t.Error("nothing was written while a backup was read slowly")
				}
				e := engines["memory"](t)
				s.restore(t, out.Bytes(), e, backup.Restore{})
				s.checkAccounts(t, plain(t, s.reopened(t, e)), accounts)
			}
			stop.Store(true)
			must(t, work.Wait())
			t.Logf("%d backups, %d moves", n, moves.Load())
		})
	}
}

const balance = 1000

// openAccounts makes accounts that lie far apart.
func (s *store) openAccounts(t *testing.T) []string {
	t.Helper()
	var keys []string
	for i := range 30 {
		keys = append(keys, fmt.Sprintf("%s/account/%02d", []string{"core", "mount/a", "mount/b"}[i%3], i))
	}
	_, err := s.barrier.Update(t.Context(), func(txn storage.Txn) error {
		for _, k := range keys {
			if err := txn.Put(k, []byte(strconv.Itoa(balance))); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
	return keys
}

func (s *store) move(accounts []string) error {
	a, b := accounts[rand.N(len(accounts))], accounts[rand.N(len(accounts))]
	if a == b {
		return nil
	}
	_, err := s.barrier.Update(context.Background(), func(txn storage.Txn) error {
		for key, by := range map[string]int{a: -1, b: 1} {
			row, err := txn.Get(key)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(row))
			if err != nil {
				return err
			}
			if err := txn.Put(key, []byte(strconv.Itoa(n+by))); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

func (s *store) checkAccounts(t *testing.T, all map[string]string, accounts []string) {
	t.Helper()
	sum := 0
	for _, k := range accounts {
		n, err := strconv.Atoi(all[k])
		must(t, err)
		sum += n
	}
	if sum != balance*len(accounts) {
		t.Fatalf("the accounts hold %d, and always held %d", sum, balance*len(accounts))
	}
}

type slow struct {
	w     io.Writer
	pause time.Duration
}

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.w.Write(p)
}

// A reader that goes away ends the backup.
func TestReaderGoesAway(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 60, 100_000)
	gone := errors.New("the client is gone")
	for _, after := range []int{0, 1, 2, 5} {
		_, err := backup.Write(t.Context(), s.barrier, from, &leaving{after, gone}, nil)
		if !errors.Is(err, gone) {
			t.Errorf("%v", err)
		}
	}
}

type leaving struct {
	left int
	err  error
}

func (l *leaving) Write(p []byte) (int, error) {
	if l.left--; l.left < 0 {
		return 0, l.err
	}
	return len(p), nil
}

// BenchmarkBackup and BenchmarkRestore report MB/s of rows, and the ratio to
// what the engine itself does with the same rows.
func BenchmarkBackup(b *testing.B) {
	s := newStore(b, engines["pebble"](b))
	s.fill(b, 40_000, 2000)
	var bytesRead int64
	scan := func() time.Duration {
		begun := time.Now()
		bytesRead = 0
		must(b, s.engine.View(b.Context(), func(r storage.Reader) error {
			return storage.All(r, "", func(e storage.Entry) error { bytesRead += int64(len(e.Key) + len(e.Value)); return nil })
		}))
		return time.Since(begun)
	}
	scan()
	bare := scan()
	b.SetBytes(bytesRead)
	for b.Loop() {
		if _, err := backup.Write(b.Context(), s.barrier, from, io.Discard, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bare.Nanoseconds())/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "of-bare-scan")
}

func BenchmarkRestore(b *testing.B) {
	s := newStore(b, engines["pebble"](b))
	s.fill(b, 20_000, 2000)
	var archive bytes.Buffer
	sum, err := backup.Write(b.Context(), s.barrier, from, &archive, nil)
	must(b, err)
	bare := bareWrite(b, s.engine)
	b.SetBytes(int64(sum.RowBytes))
	for b.Loop() {
		b.StopTimer()
		e := engines["pebble"](b)
		b.StartTimer()
		p, err := backup.Verify(b.Context(), bytes.NewReader(archive.Bytes()), backup.Seals(s.seals), nil)
		must(b, err)
		must(b, p.Into(b.Context(), e, bytes.NewReader(archive.Bytes()), backup.Restore{}))
	}
	b.ReportMetric(float64(bare.Nanoseconds())/(float64(b.Elapsed().Nanoseconds())/float64(b.N)), "of-bare-write")
}

// bareWrite writes the rows of one engine into another, one piece at a time.
func bareWrite(b *testing.B, from storage.Engine) time.Duration {
	to := engines["pebble"](b)
	begun := time.Now()
	must(b, from.View(b.Context(), func(r storage.Reader) error {
		for after := ""; ; {
			page, err := r.Scan("", after, 99)
			if err != nil || len(page) == 0 {
				return err
			}
			if _, err := to.Update(b.Context(), func(txn storage.Txn) error {
				for _, e := range page {
					if err := txn.Put(e.Key, e.Value); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
			after = page[len(page)-1].Key
		}
	}))
	return time.Since(begun)
}
