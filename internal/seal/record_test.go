package seal_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/keyfile"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

var root = []byte("a root keyset, serialized")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func file(t *testing.T, name string) seal.Named {
	t.Helper()
	s, err := keyfile.Open(filepath.Join(t.TempDir(), name))
	must(t, err)
	return seal.Named{Name: name, Kind: "keyfile", Seal: s}
}

func shares(t *testing.T) seal.Named {
	t.Helper()
	s, err := shamir.Open(shamir.NewKey())
	must(t, err)
	return seal.Named{Name: shamir.Name, Kind: shamir.Name, Seal: s}
}

func save(t *testing.T, e storage.Engine, rec *seal.Record) error {
	t.Helper()
	_, err := e.Update(t.Context(), rec.Put)
	return err
}

func load(t *testing.T, e storage.Engine) *seal.Record {
	t.Helper()
	var rec *seal.Record
	must(t, e.View(t.Context(), func(r storage.Reader) (err error) {
		rec, err = seal.Load(r)
		return err
	}))
	return rec
}

func TestAnySealOpensAndALostOneIsReplaced(t *testing.T) {
	ctx, e := t.Context(), memory.New()
	defer e.Close()
	a, b, s := file(t, "a"), file(t, "b"), shares(t)
	rec := seal.NewRecord()
	rec.Shares = &seal.Shares{Shares: 5, Threshold: 3}
	for _, n := range []seal.Named{a, b, s} {
		must(t, rec.Add(ctx, n, root))
	}
	must(t, save(t, e, rec))
	rec = load(t, e)
	for _, n := range []seal.Named{a, b, s} {
		got, by, err := rec.Unwrap(ctx, []seal.Named{n})
		if err != nil || string(got) != string(root) || by != n.Name {
			t.Errorf("%s: %q by %q, %v", n.Name, got, by, err)
		}
	}

	// a is lost: its key file is another one now.
	lost := file(t, "a")
	_, err := lost.Seal.Wrap(ctx, nil, nil)
	must(t, err)
	got, by, err := rec.Unwrap(ctx, []seal.Named{lost, b})
	if err != nil || by != "b" {
		t.Fatalf("opened by %q, %v", by, err)
	}
	wantError(t, rec.Add(ctx, lost, got), seal.ErrExists)
	must(t, rec.Replace(ctx, lost, got))
	must(t, save(t, e, rec))
	if _, by, err := load(t, e).Unwrap(ctx, []seal.Named{lost}); err != nil || by != "a" {
		t.Fatalf("the replaced seal: %v", err)
	}

	// None works: each says why.
	_, _, err = load(t, e).Unwrap(ctx, []seal.Named{a, shares(t), {Name: "b", Kind: "keyfile"}})
	wantError(t, err, seal.ErrUnopened)
	wantError(t, err, seal.ErrNotAtHand)
	wantError(t, err, shamir.ErrWrongKey)
	for _, says := range []string{`"a" (keyfile)`, `"b" (keyfile)`, `"shamir" (shamir)`} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not name %s", err, says)
		}
	}
}

func TestRemove(t *testing.T) {
	rec := seal.NewRecord()
	must(t, rec.Add(t.Context(), file(t, "a"), root))
	must(t, rec.Add(t.Context(), file(t, "b"), root))
	wantError(t, rec.Remove("c"), seal.ErrUnknown)
	must(t, rec.Remove("a"))
	wantError(t, rec.Remove("b"), seal.ErrLastSeal)
	wantError(t, rec.Replace(t.Context(), file(t, "a"), root), seal.ErrUnknown)
}

func TestRewrapIsAllOrNothing(t *testing.T) {
	ctx := t.Context()
	a, b := file(t, "a"), file(t, "b")
	rec := seal.NewRecord()
	must(t, rec.Add(ctx, a, root))
	must(t, rec.Add(ctx, b, root))
	wantError(t, rec.Rewrap(ctx, []seal.Named{a}, []byte("next")), seal.ErrNotAtHand)
	if got, _, err := rec.Unwrap(ctx, []seal.Named{a, b}); err != nil || string(got) != string(root) {
		t.Fatalf("a failed rewrap changed the record: %q, %v", got, err)
	}
	must(t, rec.Rewrap(ctx, []seal.Named{a, b}, []byte("next")))
	for _, n := range []seal.Named{a, b} {
		if got, _, err := rec.Unwrap(ctx, []seal.Named{n}); err != nil || string(got) != "next" {
			t.Fatalf("%s after rewrap: %q, %v", n.Name, got, err)
		}
	}
}

func TestWrapsAreBoundToStoreAndSeal(t *testing.T) {
	ctx := t.Context()
	a := file(t, "a")
	first, second := seal.NewRecord(), seal.NewRecord()
	must(t, first.Add(ctx, a, root))
	must(t, second.Add(ctx, a, root))
	second.Seals[0].Root = first.Seals[0].Root
	_, _, err := second.Unwrap(ctx, []seal.Named{a})
	wantError(t, err, seal.ErrUnopened)
	alias := a
	alias.Name = "b"
	first.Seals[0].Name = "b"
	_, _, err = first.Unwrap(ctx, []seal.Named{alias})
	wantError(t, err, seal.ErrUnopened)
}

func TestPutNoticesOthers(t *testing.T) {
	ctx, e := t.Context(), memory.New()
	defer e.Close()
	err := e.View(ctx, func(r storage.Reader) error { _, err := seal.Load(r); return err })
	wantError(t, err, seal.ErrNoRecord)
	rec := seal.NewRecord()
	must(t, rec.Add(ctx, file(t, "a"), root))
	must(t, save(t, e, rec))
	one, two := load(t, e), load(t, e)
	must(t, save(t, e, one))
	wantError(t, save(t, e, two), seal.ErrChanged)
	wantError(t, save(t, e, seal.NewRecord()), seal.ErrChanged)
	must(t, save(t, e, load(t, e)))
	if g := load(t, e).Generation; g != 3 {
		t.Errorf("generation %d", g)
	}
	for _, bad := range []string{"", "{", `{"version":2}`} {
		_, err := e.Update(ctx, func(x storage.Txn) error { return x.Put("seal/config", []byte(bad)) })
		must(t, err)
		err = e.View(ctx, func(r storage.Reader) error { _, err := seal.Load(r); return err })
		if err == nil || !strings.Contains(err.Error(), "seal/config") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// hung never answers, as a key service behind a dead network.
type hung struct{}

func (hung) Wrap(ctx context.Context, _, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (h hung) Unwrap(ctx context.Context, w, a []byte) ([]byte, error) { return h.Wrap(ctx, w, a) }

// lying wraps what it cannot unwrap.
type lying struct{ seal.Seal }

func (lying) Unwrap(context.Context, []byte, []byte) ([]byte, error) {
	return nil, errors.New("cannot")
}

func TestASealThatHangsOrLiesIsNotTrusted(t *testing.T) {
	a := file(t, "a")
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		rec := seal.NewRecord()
		must(t, rec.Add(ctx, a, root))
		must(t, rec.Add(ctx, seal.Named{Name: "hung", Kind: "x", Seal: a.Seal}, root))
		got, by, err := rec.Unwrap(ctx, []seal.Named{{Name: "hung", Kind: "x", Seal: hung{}}, a})
		if err != nil || by != "a" || string(got) != string(root) {
			t.Fatalf("%q by %q, %v", got, by, err)
		}
		if err := rec.Add(ctx, seal.Named{Name: "new", Kind: "x", Seal: lying{a.Seal}}, root); err == nil || rec.Has("new") {
			t.Fatalf("a seal that does not unwrap was added: %v", err)
		}
		wantError(t, rec.Add(ctx, seal.Named{Name: "new", Kind: "x", Seal: hung{}}, root), context.DeadlineExceeded)
	})
}
