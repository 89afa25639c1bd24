package token

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

const (
	testDefault = 768 * time.Hour
	testMax     = 1000 * time.Hour
)

func open(t testing.TB, engine storage.Engine) *Store {
	t.Helper()
	s, err := NewStore(t.Context(), Options{
		Storage: engine, Defaults: func() (time.Duration, time.Duration) { return testDefault, testMax },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t testing.TB) *Store {
	t.Helper()
	engine := memory.New()
	t.Cleanup(func() { _ = engine.Close() })
	return open(t, engine)
}

// issue makes a token and fails the test when it cannot.
func issue(t testing.TB, s *Store, parent *Token, r Request) (string, *Token) {
	t.Helper()
	secret, tok, err := s.Create(t.Context(), parent, r)
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal(), tok
}

func root(t testing.TB, s *Store) (string, *Token) {
	t.Helper()
	return issue(t, s, nil, Request{Policies: []string{"root"}, Initial: true, Path: "auth/token/root"})
}

func holdsNow(ctx context.Context, t testing.TB, s *Store, secret string) bool {
	t.Helper()
	_, err := s.Lookup(ctx, secret)
	if err != nil && !fault.Is(err, fault.Denied) {
		t.Fatalf("Lookup: %v", err)
	}
	return err == nil
}

// rows counts what is stored besides keys and roles.
func rows(t testing.TB, s *Store) map[string]int {
	t.Helper()
	count := map[string]int{}
	err := s.storage.View(context.Background(), func(r storage.Reader) error {
		return storage.All(r, "", func(e storage.Entry) error {
			kind, _, _ := strings.Cut(e.Key, "/")
			if kind != keyRow && kind != rolePrefix {
				count[kind]++
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func TestRootTokenAndChild(t *testing.T) {
	s := newStore(t)
	secret, tok := root(t, s)
	if !strings.HasPrefix(secret, "hvs.") || len(secret)-4 < 90 || len(secret)-4 > 120 {
		t.Errorf("token of %d characters", len(secret))
	}
	if !tok.ExpiresAt.IsZero() || tok.Renewable || !tok.Root() || !tok.Orphan {
		t.Errorf("root token %+v", tok)
	}
	childSecret, child := issue(t, s, tok, Request{Policies: []string{"Web", "web ", "db"}})
	if got := strings.Join(child.Policies, ","); got != "db,default,web" {
		t.Errorf("policies %s", got)
	}
	if child.TTL != testDefault || !child.Renewable || child.Parent != tok.ID {
		t.Errorf("child %+v", child)
	}
	got, err := s.Lookup(t.Context(), childSecret)
	if err != nil || got.Accessor != child.Accessor {
		t.Fatalf("Lookup: %v, %v", got, err)
	}
	if err := s.Revoke(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	for _, sec := range []string{secret, childSecret} {
		if holdsNow(t.Context(), t, s, sec) {
			t.Error("a token outlived its revocation")
		}
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := rows(t, s); len(left) != 0 {
		t.Errorf("rows left: %v", left)
	}
}

func TestKeysSurviveReopen(t *testing.T) {
	engine := memory.New()
	defer engine.Close()
	s := open(t, engine)
	secret, tok := root(t, s)
	batch, _ := issue(t, s, tok, Request{Type: Batch, Policies: []string{"a"}})
	again := open(t, engine)
	for _, sec := range []string{secret, batch} {
		if !holdsNow(t.Context(), t, again, sec) {
			t.Errorf("%.4s token does not hold after reopening", sec)
		}
	}
}

// The store's rows hold no token and nothing from which one can be made.
func TestRowsHoldNoSecret(t *testing.T) {
	s := newStore(t)
	secret, tok := root(t, s)
	child, _ := issue(t, s, tok, Request{ID: "chosen-by-root"})
	info, err := s.Wrap(t.Context(), WrapRequest{Body: []byte("{}"), TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	err = s.storage.View(t.Context(), func(r storage.Reader) error {
		return storage.All(r, "", func(e storage.Entry) error {
			for _, sec := range []string{secret, child, info.Token.Reveal()} {
				if strings.Contains(e.Key+string(e.Value), strings.TrimPrefix(sec, "hvs.")) {
					t.Errorf("row %s holds a token", e.Key)
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
