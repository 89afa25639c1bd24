// Package sealtest proves seals against the contract of package seal. A seal's
// own tests call Run; what only one seal promises is tested beside it.
package sealtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"sync"
	"testing"

	"github.com/cofferhq/coffer/internal/seal"
)

// Maker makes a seal with a key of its own at each call; again opens that same
// seal anew.
type Maker func(t *testing.T) (s seal.Seal, again func() seal.Seal)

// Run runs the suite.
func Run(t *testing.T, fresh Maker) {
	t.Run("round trip", func(t *testing.T) { roundTrip(t, fresh) })
	t.Run("fresh each time", func(t *testing.T) {
		s, _ := fresh(t)
		plain := []byte("the same plaintext, wrapped twice")
		if bytes.Equal(wrap(t, s, plain), wrap(t, s, plain)) {
			t.Error("wrapping is deterministic")
		}
	})
	t.Run("wrong aad", func(t *testing.T) {
		s, _ := fresh(t)
		wrapped := wrap(t, s, []byte("secret"))
		for _, other := range []string{"", "aa", "aad ", "AAD"} {
			refuse(t, s, wrapped, []byte(other), "aad "+other)
		}
	})
	t.Run("tampering", func(t *testing.T) { tampering(t, fresh) })
	t.Run("foreign", func(t *testing.T) {
		a, _ := fresh(t)
		b, _ := fresh(t)
		refuse(t, b, wrap(t, a, []byte("secret")), aad, "another seal's")
	})
	t.Run("concurrent", func(t *testing.T) { concurrent(t, fresh) })
}

var aad = []byte("aad")

func wrap(t *testing.T, s seal.Seal, plain []byte) []byte {
	t.Helper()
	wrapped, err := s.Wrap(context.Background(), plain, aad)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func refuse(t *testing.T, s seal.Seal, wrapped, aad []byte, what string) {
	t.Helper()
	if plain, err := s.Unwrap(context.Background(), wrapped, aad); err == nil {
		t.Errorf("%s: unwrapped %d bytes", what, len(plain))
	}
}

func roundTrip(t *testing.T, fresh Maker) {
	s, again := fresh(t)
	for _, size := range []int{1, 32, 33, 200, 4096} {
		plain := make([]byte, size)
		_, _ = rand.Read(plain)
		kept := bytes.Clone(plain)
		wrapped := wrap(t, s, plain)
		if !bytes.Equal(plain, kept) {
			t.Error("Wrap changed its argument")
		}
		if size > 16 && bytes.Contains(wrapped, plain[:16]) {
			t.Error("the plaintext shows in what was wrapped")
		}
		for _, s := range []seal.Seal{s, again()} {
			back, err := s.Unwrap(t.Context(), wrapped, aad)
			if err != nil || !bytes.Equal(back, plain) {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
}

func tampering(t *testing.T, fresh Maker) {
	s, _ := fresh(t)
	wrapped := wrap(t, s, []byte("secret"))
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		refuse(t, s, bad, aad, "changed byte")
		refuse(t, s, wrapped[:i], aad, "cut short")
	}
	refuse(t, s, append(bytes.Clone(wrapped), 0), aad, "grown")
	refuse(t, s, nil, aad, "nothing")
}

func concurrent(t *testing.T, fresh Maker) {
	s, _ := fresh(t)
	var work sync.WaitGroup
	for n := range 8 {
		work.Go(func() {
			plain := bytes.Repeat([]byte{byte(n + 1)}, 64)
			for range 20 {
				wrapped, err := s.Wrap(t.Context(), plain, aad)
				if err != nil {
					t.Error(err)
					return
				}
				back, err := s.Unwrap(t.Context(), wrapped, aad)
				if err != nil || !bytes.Equal(back, plain) {
					t.Errorf("round trip: %v", err)
					return
				}
			}
		})
	}
	work.Wait()
}
