package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/token"
)

func TestTroublesOfTheStorageEngineAreNamed(t *testing.T) {
	f := newFixture(t)
	for text, want := range map[string]string{"full": "storage is full", "away": "cannot be reached", "torn": "may or may not be there"} {
		status, out := f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"`+text+`"}`)
		if status != 503 || !strings.Contains(fmt.Sprint(out["errors"]), want) {
			t.Errorf("%s: %d %v", text, status, out)
		}
	}
}

// While the engine is away, reads of what is in memory are answered where the
// configuration allows that, and say so; everything else is refused.
func TestStaleReads(t *testing.T) {
	f := newFixture(t)
	reader := f.token(t, token.Request{Policies: []string{"reader"}})
	counted := f.token(t, token.Request{Policies: []string{"reader"}, NumUses: 5000})
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"hunter2"}`)
	f.ask(t, f.root, "POST", "secret/data/app/cold", `{"text":"not read before"}`)
	waitFor(t, "the read comes from memory", func() bool {
		f.ask(t, counted, "GET", "secret/data/app/db", "")
		status, _ := f.ask(t, reader, "GET", "secret/data/app/db", "")
		return status == 200 && f.realms.CacheStats()["rows"].Hits > 0
	})
	var header time.Duration
	get := func(tok, path string) (int, string) {
		f.n++
		a := f.Serve(t.Context(), &Request{ID: fmt.Sprint("s", f.n), Method: "GET", Path: path, Token: tok, Remote: netip.MustParseAddrPort("127.0.0.1:5000")})
		header = a.Stale
		return a.Status, string(a.Body)
	}
	f.engine.Set(true)
	waitFor(t, "without stale_reads the read is refused", func() bool {
		status, body := get(reader, "secret/data/app/db")
		return status == 503 && strings.Contains(body, "cannot be reached")
	})

	f.StaleReads = time.Minute
	status, body := get(reader, "secret/data/app/db")
	if status != 200 || !strings.Contains(body, "hunter2") || !strings.Contains(body, `"warnings":["stale: the storage engine cannot be reached`) || header <= 0 {
		t.Errorf("%d %v %s", status, header, body)
	}
	all := f.entries(t)
	if last := all[len(all)-1]; last.StaleMS <= 0 || last.Status != 200 || last.Request.Path != "secret/data/app/db" {
		t.Errorf("the audit log does not say that the answer was stale: %+v", last)
	}
	for what, c := range map[string][2]string{
		"a row that is not in memory":    {reader, "secret/data/app/cold"},
		"a token whose uses are counted": {counted, "secret/data/app/db"},
		"a token that is not in memory":  {"hvs.AAAAAAAAAAAAAAAAAAAAAAAA", "secret/data/app/db"},
	} {
		if status, body := get(c[0], c[1]); status != 503 && status != 403 || strings.Contains(body, "hunter2") {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	if status, _ := get(reader, "secret/data/other"); status != 403 {
		t.Errorf("a stale read past the policies: %d", status)
	}
	if status, out := f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"x"}`); status != 503 {
		t.Errorf("a write while the engine is away: %d %v", status, out)
	}
	f.StaleReads = time.Millisecond
	if status, _ := get(reader, "secret/data/app/db"); status != 503 {
		t.Errorf("beyond the grace: %d", status)
	}

	f.StaleReads = time.Minute
	f.engine.Set(false)
	waitFor(t, "answers are fresh again", func() bool {
		status, body := get(reader, "secret/data/app/db")
		return status == 200 && header == 0 && !strings.Contains(body, "stale")
	})
}
