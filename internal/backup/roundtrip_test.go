package backup_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/seal"
)

// Random stores are what they were after a backup and a restore, from every
// engine into every engine.
func TestRoundTrip(t *testing.T) {
	for from, make := range engines {
		for to, other := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				for range 2 * soak() {
					s := newStore(t, make(t))
					want := s.fill(t, rand.N(700), 1+rand.N(3000))
					archive := s.archive(t)
					e := other(t)
					p := s.restore(t, archive, e, backup.Restore{})
					same(t, "restored", plain(t, s.reopened(t, e)), want)
					if p.Rows != uint64(len(rows(t, s.engine))) {
						t.Errorf("%d rows counted", p.Rows)
					}
					sum := sha256.Sum256(archive)
					if p.SHA256 != hex.EncodeToString(sum[:]) {
						t.Error("the checksum is not the file's")
					}
				}
			})
		}
	}
}

// From one engine to another and back nothing changes, byte by byte.
func TestMovingBetweenEngines(t *testing.T) {
	s := newStore(t, engines["pebble"](t))
	s.fill(t, 500, 2000)
	want := rows(t, s.engine)
	first := engines["memory"](t)
	s.restore(t, s.archive(t), first, backup.Restore{})
	between := &store{engine: first, barrier: s.reopened(t, first), seals: s.seals}
	last := engines["pebble"](t)
	s.restore(t, between.archive(t), last, backup.Restore{})
	got := rows(t, last)
	delete(got, backup.NoticeRow)
	same(t, "moved", got, want)
}

// The largest rows there can be, and none of a kind, go through.
func TestExtremes(t *testing.T) {
	for name, shape := range map[string]struct{ rows, size int }{"empty": {0, 1}, "one byte": {3, 1}, "large": {7, 1 << 20}} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, engines["memory"](t))
			want := s.fill(t, shape.rows, shape.size)
			e := engines["memory"](t)
			s.restore(t, s.archive(t), e, backup.Restore{})
			same(t, "restored", plain(t, s.reopened(t, e)), want)
		})
	}
}

// Nothing of what a store's rows are called, or hold, shows in an archive.
func TestNothingShows(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	s.fill(t, 50, 100)
	archive := s.archive(t)
	for key, value := range rows(t, s.engine) {
		if key == seal.RecordRow {
			continue
		}
		if bytes.Contains(archive, []byte(key)) || len(value) > 16 && bytes.Contains(archive, []byte(value)[:16]) {
			t.Errorf("row %q shows", key)
		}
	}
	for _, word := range []string{"mount/", "core/", "barrier/"} {
		if bytes.Contains(archive, []byte(word)) {
			t.Errorf("%q shows", word)
		}
	}
}

// The wrapping for Vault's clients holds the same archive.
func TestSnapshot(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	want := s.fill(t, 300, 20_000)
	var out bytes.Buffer
	z := backup.NewSnapshot(&out)
	sum, err := backup.Write(t.Context(), s.barrier, from, z, nil)
	must(t, err)
	must(t, z.Close())
	e := engines["memory"](t)
	p := s.restore(t, out.Bytes(), e, backup.Restore{})
	same(t, "restored", plain(t, s.reopened(t, e)), want)
	if p.SHA256 != sum.SHA256 {
		t.Error("the checksum is of another archive")
	}
}

// Tokens can be left behind.
func TestRevokeTokens(t *testing.T) {
	s := newStore(t, engines["memory"](t))
	want := s.fill(t, 20, 100)
	_, err := s.barrier.Update(t.Context(), put("core/tokens/id/x", "a token"))
	must(t, err)
	archive := s.archive(t)
	e := engines["memory"](t)
	s.restore(t, archive, e, backup.Restore{RevokeTokens: true})
	same(t, "without tokens", plain(t, s.reopened(t, e)), want)
	want["core/tokens/id/x"] = "a token"
	e = engines["memory"](t)
	s.restore(t, archive, e, backup.Restore{})
	same(t, "with tokens", plain(t, s.reopened(t, e)), want)
}

// A large archive costs little memory, written and read.
func TestMemoryIsBounded(t *testing.T) {
	s := newStore(t, engines["pebble"](t))
	s.fill(t, 100*soak(), 1<<20)                                          // 50 MiB, or 2.5 GiB
	_, err := backup.Write(t.Context(), s.barrier, from, io.Discard, nil) // the engine's own buffers
	must(t, err)
	runtime.GC()
	var base runtime.MemStats
	runtime.ReadMemStats(&base)
	var peak atomic.Uint64
	n := 0
	watch := func(backup.Progress) {
		if n++; n%4 != 0 {
			return
		}
		runtime.GC()
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		peak.Store(max(peak.Load(), now.HeapAlloc-min(now.HeapAlloc, base.HeapAlloc)))
	}
	pr, pw := io.Pipe()
	go func() {
		_, err := backup.Write(t.Context(), s.barrier, from, pw, watch)
		pw.CloseWithError(err)
	}()
	p, err := backup.Verify(t.Context(), pr, backup.Seals(s.seals), nil)
	must(t, err)
	t.Logf("%d MiB of archive, %d MiB of memory", p.Bytes>>20, peak.Load()>>20)
	if peak.Load() > 64<<20 {
		t.Errorf("it took %d MiB", peak.Load()>>20)
	}
}

// Every kind of thing that is not an archive is told from one that is broken.
func TestNoArchive(t *testing.T) {
	for text, want := range map[string]error{
		"": backup.ErrCut, "coffer ba": backup.ErrCut, "something else, long enough": backup.ErrNoArchive,
		"coffer backup 9\nand what comes then": backup.ErrFormat, "\x1f\x8b": backup.ErrCut, "x": backup.ErrNoArchive,
	} {
		if _, err := backup.Check(strings.NewReader(text), nil); !is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}
