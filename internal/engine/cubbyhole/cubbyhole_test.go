package cubbyhole_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/engine/cubbyhole"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func open(t testing.TB) *enginetest.Engine {
	return enginetest.Open(t, cubbyhole.Kind.Spec(), enginetest.Options{})
}

func token(id string) route.Caller { return route.Caller{TokenID: id, DisplayName: id} }

func TestExamples(t *testing.T) {
	enginetest.Examples(t, func(t testing.TB) *enginetest.Engine {
		e := open(t)
		e.Must(t, 204, "POST", "one", `{"key":"value"}`)
		return e
	})
}

func TestEveryTokenSeesOnlyItsOwn(t *testing.T) {
	e := open(t)
	if a := e.As(token("a"), "POST", "x/y", `{"n":12345678901234567890}`); a.Status != 204 {
		t.Fatal(a.Err)
	}
	if a := e.As(token("a"), "GET", "x/y", ""); a.Data != `{"n":12345678901234567890}` {
		t.Errorf("read %s, %v", a.Data, a.Err)
	}
	for _, other := range []route.Caller{token("b"), enginetest.Root(), token("a2")} {
		if a := e.As(other, "GET", "x/y", ""); a.Status != 404 || a.Err.Error() != "" {
			t.Errorf("%s reads what another token keeps: %d %v", other.TokenID, a.Status, a.Err)
		}
		if a := e.As(other, "LIST", "", ""); a.Status != 404 {
			t.Errorf("%s lists what another token keeps: %s", other.TokenID, a.Data)
		}
		if a := e.As(other, "DELETE", "x/y", ""); a.Status != 204 {
			t.Errorf("delete: %d", a.Status)
		}
	}
	if a := e.As(token("a"), "LIST", "", ""); a.Data != `{"keys":["x/"]}` {
		t.Errorf("list %s, %v", a.Data, a.Err)
	}
	if a := e.As(token("a"), "LIST", "x/", ""); a.Data != `{"keys":["y"]}` {
		t.Errorf("list %s, %v", a.Data, a.Err)
	}
	if a := e.As(token("a"), "DELETE", "x/y", ""); a.Status != 204 {
		t.Error(a.Err)
	}
	if a := e.As(token("a"), "GET", "x/y", ""); a.Status != 404 {
		t.Errorf("read after delete: %d", a.Status)
	}
}

func TestRefusals(t *testing.T) {
	e := enginetest.Open(t, cubbyhole.Kind.Spec(), enginetest.Options{MaxPayload: 64})
	for name, c := range map[string]struct {
		by         route.Caller
		path, body string
		status     int
		says       string
	}{
		"batch token":    {token(""), "x", `{"a":1}`, 400, "service tokens"},
		"crafted token":  {token("a/b"), "x", `{"a":1}`, 400, "service tokens"},
		"no data":        {token("a"), "x", ``, 400, "missing data fields"},
		"empty data":     {token("a"), "x", `{ }`, 400, "missing data fields"},
		"too large":      {token("a"), "x", `{"a":"` + strings.Repeat("b", 64) + `"}`, 413, "64"},
		"no path":        {token("a"), "", `{"a":1}`, 400, "missing path"},
		"dots":           {token("a"), "../b/x", `{"a":1}`, 400, ".."},
		"trailing slash": {token("a"), "x/", `{"a":1}`, 400, "slash"},
		"token too long": {token(strings.Repeat("t", storage.MaxKeyBytes)), "x", `{"a":1}`, 500, "storage key"},
	} {
		a := e.As(c.by, "POST", c.path, c.body)
		if a.Status != c.status || !strings.Contains(a.Err.Error(), c.says) {
			t.Errorf("%s: %d %v, want %d with %q", name, a.Status, a.Err, c.status, c.says)
		}
	}
}

// flaky fails every second Update.
type flaky struct {
	storage.Engine
	calls int
}

var errFlaky = errors.New("no storage now")

func (f *flaky) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if f.calls++; f.calls%2 == 0 {
		return 0, errFlaky
	}
	return f.Engine.Update(ctx, fn)
}

func TestPurgeGoesOnAfterAnError(t *testing.T) {
	store := memory.New()
	e := enginetest.Open(t, cubbyhole.Kind.Spec(), enginetest.Options{Storage: store})
	for i := range 100 {
		e.As(token("gone"), "POST", fmt.Sprintf("a/%d", i), `{"a":1}`)
	}
	e.As(token("gone2"), "POST", "kept", `{"a":1}`)
	broken := enginetest.Open(t, cubbyhole.Kind.Spec(), enginetest.Options{Storage: &flaky{Engine: store}})
	purge := broken.State.(*cubbyhole.Store)
	tries := 0
	for ; purge.Purge(t.Context(), "gone") != nil; tries++ {
		if tries > 100 {
			t.Fatal("it does not get on")
		}
	}
	if tries == 0 {
		t.Error("the storage never failed, so nothing was shown")
	}
	if a := e.As(token("gone"), "LIST", "", ""); a.Status != 404 {
		t.Errorf("after the purge: %s", a.Data)
	}
	if a := e.As(token("gone2"), "GET", "kept", ""); a.Status != 200 {
		t.Errorf("another token's value: %v", a.Err)
	}
	if err := purge.Purge(t.Context(), ""); err != nil {
		t.Error(err)
	}
}
