package token

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestBatchTokenHoldsWhatItWasGiven(t *testing.T) {
	s := newStore(t)
	_, parent := root(t, s)
	secret, made := issue(t, s, parent, Request{
		Type: Batch, Policies: []string{"web", "db"}, Path: "auth/userpass/login/bob", DisplayName: "userpass-bob",
		EntityID: "e", Meta: map[string]string{"username": "bob", "a": ""}, Role: "r", Mount: "auth_userpass_1",
		BoundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Terms: lifetime.Terms{TTL: time.Hour},
	})
	got, err := s.Lookup(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, got, cmpopts.IgnoreFields(Token{}, "Terms"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("made and looked up differ:\n%s", diff)
	}
	if made.Accessor != "" || made.Renewable {
		t.Errorf("batch token %+v", made)
	}
	if n := rows(t, s)["id"]; n != 1 {
		t.Errorf("%d rows; a batch token has none", n)
	}
	if _, _, err := s.Create(t.Context(), got, Request{}); err == nil || err.Error() != "batch tokens cannot create more tokens" {
		t.Errorf("creating by a batch token: %v", err)
	}
	if _, err := s.Renew(t.Context(), got.ID, Renewal{}); !fault.Is(err, fault.Denied) {
		t.Errorf("renewing a batch token: %v", err)
	}
	if err := s.Revoke(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	if holdsNow(t.Context(), t, s, secret) {
		t.Error("the batch token outlived its parent")
	}
}

func TestBatchTokenLength(t *testing.T) {
	s := newStore(t)
	_, parent := root(t, s)
	for _, c := range []struct {
		parent *Token
		r      Request
	}{
		{nil, Request{Policies: []string{"a"}}},
		{parent, Request{Policies: []string{"web"}, Path: "auth/token/create", DisplayName: "token"}},
		{nil, Request{Policies: []string{"web"}, Path: "auth/userpass/login/bob", DisplayName: "userpass-bob", Meta: map[string]string{"username": "bob"}}},
	} {
		c.r.Type = Batch
		secret, _ := issue(t, s, c.parent, c.r)
		if n := len(secret) - len(batchPrefix); n < 90 || n > 120 {
			t.Errorf("%d characters after the dot for %+v", n, c.r)
		}
	}
	many := make([]string, 2000)
	for i := range many {
		many[i] = strings.Repeat("p", i%7+1) + time.Duration(i).String()
	}
	if _, _, err := s.Create(t.Context(), nil, Request{Type: Batch, Policies: many}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a batch token beyond what a header takes: %v", err)
	}
}

func TestBatchTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		secret, _ := issue(t, s, nil, Request{Type: Batch, Policies: []string{"a"}, Terms: lifetime.Terms{TTL: time.Minute}})
		time.Sleep(59 * time.Second)
		if !holdsNow(t.Context(), t, s, secret) {
			t.Error("ended before its time")
		}
		time.Sleep(time.Second)
		if holdsNow(t.Context(), t, s, secret) {
			t.Error("holds after its time")
		}
	})
}

// No other text than the one that was issued is accepted: every change of one
// character, every cut and every addition is refused.
func TestBatchTokenTampering(t *testing.T) {
	s := newStore(t)
	secret, _ := issue(t, s, nil, Request{Type: Batch, Policies: []string{"a"}})
	refused := func(text string) {
		t.Helper()
		if tok, err := s.Lookup(t.Context(), text); !fault.Is(err, fault.Denied) {
			t.Fatalf("accepted %q: %+v, %v", text, tok, err)
		}
	}
	for i := len(batchPrefix); i < len(secret); i++ {
		for _, c := range "ABCabc019-_=\n\r +/.\x00" {
			if rune(secret[i]) != c {
				refused(secret[:i] + string(c) + secret[i+1:])
			}
		}
		refused(secret[:i])
		refused(secret[:i] + "\n" + secret[i:])
		refused(secret[:i] + secret[i+1:])
	}
	for _, suffix := range []string{"A", "=", "\n", " ", "AAAA", secret} {
		refused(secret + suffix)
	}
	other, _ := issue(t, newStore(t), nil, Request{Type: Batch, Policies: []string{"root-like"}})
	refused(other)
	refused(strings.Replace(secret, "hvb.", "hvs.", 1))
}

func TestBatchFormatRoundTrip(t *testing.T) {
	s := newStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.OneOf(rapid.SampledFrom(dictionary), rapid.StringN(0, 40, 60))
		in := &Token{
			Type: Batch, Orphan: true, CreatedAt: time.Unix(rapid.Int64Range(0, 1<<35).Draw(rt, "at"), 0),
			TTL:      time.Duration(rapid.Int64Range(1, 1<<31).Draw(rt, "ttl")) * time.Second,
			Policies: rapid.SliceOfN(text, 1, 5).Draw(rt, "policies"), Path: text.Draw(rt, "path"),
			DisplayName: text.Draw(rt, "name"), EntityID: text.Draw(rt, "entity"), Mount: text.Draw(rt, "mount"), Role: text.Draw(rt, "role"),
			Meta: rapid.MapOfN(text, text, 1, 4).Draw(rt, "meta"),
		}
		in.ExpiresAt = in.CreatedAt.Add(in.TTL)
		secret, err := s.sealBatch(in)
		if err != nil {
			rt.Fatal(err)
		}
		out, err := s.openBatch(secret)
		if err != nil {
			rt.Fatal(err)
		}
		out.ID = ""
		if diff := cmp.Diff(in, out); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func FuzzParseBatch(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{1, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := parseBatch(b)
		if (tok == nil) == (err == nil) {
			t.Fatalf("%v, %v", tok, err)
		}
	})
}

func FuzzLookup(f *testing.F) {
	s := newStore(f)
	secret, _ := root(f, s)
	batch, _ := issue(f, s, nil, Request{Type: Batch, Policies: []string{"a"}})
	for _, seed := range []string{"", "hvs.", "hvb.", "hvs." + strings.Repeat("A", 96), "hvb." + strings.Repeat("A", 100), "root",
		strings.Repeat("x", 5000), "hvs.\x00", "hvb.\n", "\xff\xfe", "../id/x", "s.abc", batch[:50], secret[:50], "hvb.hvb." + batch} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == secret || text == batch {
			return
		}
		tok, err := s.Lookup(t.Context(), text)
		if !fault.Is(err, fault.Denied) || err.Error() != "bad token" {
			t.Fatalf("Lookup(%q): %+v, %v", text, tok, err)
		}
	})
}
