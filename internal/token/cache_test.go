package token_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/token"
)

// cached is a store over the barrier and its cache, as a server has it.
func cached(t testing.TB) *token.Store {
	t.Helper()
	engine := memory.New()
	t.Cleanup(func() { _ = engine.Close() })
	key, err := barrier.NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	b := barrier.New(engine, slog.New(slog.DiscardHandler))
	if err := b.Initialize(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := b.Open(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	const prefix = "core/token/"
	cache := barrier.NewCache(b, prefix+token.Prefix, 100_000, token.Decode)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Follow(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	s, err := token.NewStore(t.Context(), token.Options{
		Storage: storage.Sub(b, prefix), Cache: cache, CachePrefix: prefix,
		Defaults: func() (time.Duration, time.Duration) { return time.Hour, time.Hour },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t testing.TB, s *token.Store, parent *token.Token) (string, *token.Token) {
	t.Helper()
	secret, tok, err := s.Create(t.Context(), parent, token.Request{Policies: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal(), tok
}

// What was looked up before and is in the cache ends at once when it, or an
// ancestor of it, is revoked on this node.
func TestRevocationPassesTheCache(t *testing.T) {
	s := cached(t)
	for range 50 {
		_, top := create(t, s, nil)
		_, middle := create(t, s, top)
		secret, _ := create(t, s, middle)
		for range 3 {
			if _, err := s.Lookup(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Revoke(t.Context(), top.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lookup(t.Context(), secret); !fault.Is(err, fault.Denied) {
			t.Fatalf("after the revocation: %v", err)
		}
	}
}

// BenchmarkLookup is the hot path: a cached token with none, one and five
// ancestors, and a batch token.
func BenchmarkLookup(b *testing.B) {
	s := cached(b)
	secret, tok := create(b, s, nil)
	run := func(name, secret string) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Lookup(b.Context(), secret); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond) // until the cache has heard of the watch
	run("ancestors=0", secret)
	for depth := 1; depth <= 5; depth++ {
		secret, tok = create(b, s, tok)
		if depth == 1 || depth == 5 {
			run(fmt.Sprintf("ancestors=%d", depth), secret)
		}
	}
	batch, _, err := s.Create(b.Context(), nil, token.Request{Type: token.Batch, Policies: []string{"web"}})
	if err != nil {
		b.Fatal(err)
	}
	run("batch", batch.Reveal())
}
