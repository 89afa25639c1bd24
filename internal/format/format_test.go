package format

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func those(live ...int) func(storage.Reader) ([]int, error) {
	return func(storage.Reader) ([]int, error) { return live, nil }
}

func TestReleasesInARowShareAStore(t *testing.T) {
	e := memory.New()
	one, two, three := Release{1, "1.0"}, Release{2, "2.0"}, Release{3, "3.0"}
	enter := func(r Release, want int) {
		t.Helper()
		if f, err := r.Enter(t.Context(), e); err != nil || f != want {
			t.Fatalf("%s enters with format %d, %v; want %d", r.Name, f, err, want)
		}
	}
	enter(one, 1)
	enter(two, 1) // beside the older one, in its format
	if f, err := two.Raise(t.Context(), e, those(2, 1)); err != nil || f != 1 {
		t.Fatalf("raised over an older node: %d %v", f, err)
	}
	if _, err := three.Enter(t.Context(), e); !errors.Is(err, ErrSkew) || !strings.Contains(err.Error(), "in between") {
		t.Fatalf("two releases at once: %v", err)
	}
	if f, err := two.Raise(t.Context(), e, those(2, 2, 3)); err != nil || f != 2 {
		t.Fatalf("not raised: %d %v", f, err)
	}
	enter(two, 2)
	enter(three, 2)
	if _, err := one.Enter(t.Context(), e); !errors.Is(err, ErrSkew) || !strings.Contains(err.Error(), "raised to format 2 by release 2.0") {
		t.Fatalf("an older release came back: %v", err)
	}
	if f, err := one.Raise(t.Context(), e, those()); err != nil || f != 2 {
		t.Fatalf("an older release lowered the format: %d %v", f, err)
	}
}

func TestAMarkerThatCannotBeReadIsRefused(t *testing.T) {
	for _, text := range []string{"", "{}", `{"format":0}`, `{"format":-1}`, "\x00", `{"format":"x"}`} {
		e := memory.New()
		if _, err := e.Update(t.Context(), func(x storage.Txn) error { return x.Put(Row, []byte(text)) }); err != nil {
			t.Fatal(err)
		}
		if _, err := (Release{1, "1.0"}).Enter(t.Context(), e); !errors.Is(err, ErrSkew) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Nodes come, go and raise in any order: a live node always knows the format.
func TestALiveNodeAlwaysKnowsTheFormat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, live := memory.New(), map[int]Release{}
		knows := func() (all []int) {
			for _, r := range live {
				all = append(all, r.Knows)
			}
			return all
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				r := Release{rapid.IntRange(1, 4).Draw(t, "knows"), "x"}
				if _, err := r.Enter(t.Context(), e); err == nil {
					live[rapid.IntRange(0, 2).Draw(t, "node")] = r
				}
			},
			"leave": func(t *rapid.T) { delete(live, rapid.IntRange(0, 2).Draw(t, "node")) },
			"raise": func(t *rapid.T) {
				for _, r := range live {
					if _, err := r.Raise(t.Context(), e, those(knows()...)); err != nil {
						t.Fatal(err)
					}
				}
			},
			"": func(t *rapid.T) {
				for _, r := range live {
					if _, err := r.Enter(t.Context(), e); err != nil {
						t.Fatalf("a live node no longer fits: %v", err)
					}
				}
			},
		})
	})
}
