package rows

import (
	"errors"
	"slices"
	"testing"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

type row struct{ N int }

func TestBook(t *testing.T) {
	e := memory.New()
	defer e.Close()
	ctx := t.Context()
	b := New[row](engine.Env{Storage: e, Recent: engine.ReadThrough(e)}, "role/")
	for _, get := range []func(name string) (*row, error){
		func(name string) (*row, error) { return b.Find(ctx, name) },
		func(name string) (*row, error) { return b.Lately(ctx, name) },
	} {
		if got, err := get("a"); got != nil || err != nil {
			t.Errorf("%v %v", got, err)
		}
	}
	refusal := errors.New("no")
	for range 2 {
		if err := b.Change(ctx, "a", func(r *row) error { r.N++; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := b.Change(ctx, "a", func(r *row) error { r.N = 100; return refusal }); !errors.Is(err, refusal) {
			t.Fatal(err)
		}
	}
	if got, err := b.Find(ctx, "a"); err != nil || got.N != 2 {
		t.Errorf("%v %v", got, err)
	}
	if got, err := b.List(ctx, route.Page{}); err != nil || !slices.Equal(got.Keys, []string{"a"}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := e.Update(ctx, func(t storage.Txn) error { return t.Put("role/bad", []byte("{")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Find(ctx, "bad"); err == nil {
		t.Error("garbage is read")
	}
	if err := b.Change(ctx, "bad", func(*row) error { return nil }); err == nil {
		t.Error("garbage is replaced unseen")
	}
	if err := b.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Lately(ctx, "a"); got != nil || err != nil {
		t.Errorf("%v %v", got, err)
	}
}
