package policystore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy/policystore"
)

func TestReplace(t *testing.T) {
	s := fixture(t)
	const one, two = `path "secret/a" { capabilities = ["read"] }`, `path "secret/b" { capabilities = ["read"] }`
	steps := []struct {
		text, seen string
		want       fault.Kind
	}{
		{one, policystore.Fingerprint(one), fault.Conflict}, {one, policystore.None, 0}, {two, policystore.None, fault.Conflict},
		{two, policystore.Fingerprint(two), fault.Conflict}, {two, policystore.Fingerprint(one), 0}, {"path", policystore.Fingerprint(two), fault.Invalid},
	}
	for i, c := range steps {
		if _, err := s.Replace(t.Context(), "CAS", c.text, c.seen); c.want == 0 && err != nil || c.want != 0 && !fault.Is(err, c.want) {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if p, err := s.Get(t.Context(), "cas"); err != nil || p.Source != two {
		t.Errorf("%+v %v", p, err)
	}
	for _, name := range []string{"root", "response-wrapping", "a b*"} {
		if _, err := s.Replace(t.Context(), name, one, policystore.None); !fault.Is(err, fault.Invalid) {
			t.Errorf("replace %s: %v", name, err)
		}
	}
	for _, name := range []string{"root", "default", "response-wrapping"} {
		if err := s.Remove(t.Context(), name, policystore.None); !fault.Is(err, fault.Invalid) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if err := s.Remove(t.Context(), "cas", policystore.Fingerprint(one)); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "cas", policystore.Fingerprint(two)); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "cas"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func items(from, n int) []policystore.AppliedItem {
	var out []policystore.AppliedItem
	for i := range n {
		id := fmt.Sprintf("policy:p%05d", from+i)
		out = append(out, policystore.AppliedItem{ID: id, Fingerprint: policystore.Fingerprint(id), By: "token-ci"})
	}
	return out
}

func TestApplied(t *testing.T) {
	s := fixture(t)
	if all, err := s.Applied(t.Context(), "main"); err != nil || all.Revision != 0 || len(all.Items) != 0 {
		t.Errorf("%+v %v", all, err)
	}
	if r, err := s.Record(t.Context(), "main", 0, items(0, 3), nil); err != nil || r != 1 {
		t.Fatal(r, err)
	}
	if _, err := s.Record(t.Context(), "main", 0, items(3, 1), nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("an old revision: %v", err)
	}
	if r, err := s.Record(t.Context(), "main", 1, items(0, 1), []string{"policy:p00001", "policy:nosuch"}); err != nil || r != 2 {
		t.Fatal(r, err)
	}
	if all, err := s.Applied(t.Context(), "main"); err != nil || all.Revision != 2 || len(all.Items) != 2 {
		t.Errorf("%+v %v", all, err)
	}
	if all, err := s.Applied(t.Context(), "other"); err != nil || len(all.Items) != 0 {
		t.Errorf("another set: %+v %v", all, err)
	}
}

func TestAppliedBounds(t *testing.T) {
	s := fixture(t)
	for _, set := range []string{"", "A", "a/b", "../a", strings.Repeat("a", 65), "-a"} {
		if _, err := s.Applied(t.Context(), set); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", set, err)
		}
	}
	bad := func(change func(*policystore.AppliedItem)) []policystore.AppliedItem {
		list := items(0, 1)
		change(&list[0])
		return list
	}
	for name, put := range map[string][]policystore.AppliedItem{
		"none": nil, "too many": items(0, policystore.MaxAppliedChange+1),
		"no id":          bad(func(i *policystore.AppliedItem) { i.ID = "" }),
		"a long id":      bad(func(i *policystore.AppliedItem) { i.ID = strings.Repeat("a", 1025) }),
		"no fingerprint": bad(func(i *policystore.AppliedItem) { i.Fingerprint = "x" }),
		"many fields":    bad(func(i *policystore.AppliedItem) { i.Fields = make([]string, 257) }),
	} {
		if _, err := s.Record(t.Context(), "main", 0, put, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	revision := uint64(0)
	for i := 0; i < policystore.MaxApplied; i += policystore.MaxAppliedChange {
		var err error
		if revision, err = s.Record(t.Context(), "main", revision, items(i, policystore.MaxAppliedChange), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Record(t.Context(), "main", revision, items(policystore.MaxApplied, 1), nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("one more than %d items: %v", policystore.MaxApplied, err)
	}
}
