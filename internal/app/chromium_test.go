package app_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// page calls the API as a single-page application does, and tells its own server
// what came of it, a line for each call.
const page = `<!doctype html><script>
const api = %q, token = %q;
async function call(options) {
	try {
		const answer = await fetch(api + "/v1/secret/data/app", options);
		return answer.status + " " + await answer.text();
	} catch (err) {
		return "" + err;
	}
}
(async () => {
	const headers = {"X-Vault-Token": token, "X-Page": "1"};
	const out = [
		await call({method: "PUT", headers: headers, body: JSON.stringify({data: {password: "from a page"}})}),
		await call({headers: headers}),
		await call({headers: headers, credentials: "include"}),
		await call({headers: {...headers, "X-Unasked": "1"}}),
		await call({method: "POST", body: "{}"}),
	];
	await fetch("/told", {method: "POST", body: out.map(t => t.replaceAll("\n", " ")).join("\n")});
})();
</script>`

// visit opens a page of an origin of its own in a real browser, and returns what it
// told. set is called with the origin before.
func visit(t *testing.T, s *apptest.Server, set func(origin string)) []string {
	t.Helper()
	told := make(chan string, 1)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/told":
			text, _ := io.ReadAll(r.Body)
			told <- string(text)
		case "/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = fmt.Fprintf(w, page, s.URL(), s.Root)
		default:
			http.NotFound(w, r)
		}
	}))
	defer site.Close()
	set(site.URL)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	browser := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--ignore-certificate-errors", "--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), site.URL+"/")
	browser.WaitDelay = 5 * time.Second
	if err := browser.Start(); err != nil {
		t.Fatalf("chromium (scripts/test-deps installs it): %v", err)
	}
	defer func() { cancel(); _ = browser.Wait() }()
	select {
	case text := <-told:
		return strings.Split(text, "\n")
	case <-ctx.Done():
		t.Fatal("the page told nothing")
		return nil
	}
}

// TestPagesInARealBrowser has Chromium decide: it asks before, and keeps from a page
// what the answers do not allow it.
func TestPagesInARealBrowser(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, "")
	const failed = "TypeError: Failed to fetch"
	foreign := visit(t, s, func(string) {
		s.Must(t, 204, "POST", "sys/config/cors", `{"allowed_origins":"https://portal.example.com"}`)
	})
	for i, told := range foreign {
		if told != failed {
			t.Errorf("a page from elsewhere, call %d: %s", i, told)
		}
	}
	if a := s.Do(t, "GET", "secret/data/app", s.Root, ""); a.Status != 404 {
		t.Errorf("a page from elsewhere has written: %d %s", a.Status, a.Body)
	}
	own := visit(t, s, func(origin string) {
		s.Must(t, 204, "POST", "sys/config/cors", `{"allowed_origins":"`+origin+`","allowed_headers":"X-Page"}`)
	})
	for i, want := range []string{"200 ", "200 ", failed, failed, "403 "} {
		if i >= len(own) || !strings.HasPrefix(own[i], want) {
			t.Errorf("call %d of %q, want %q", i, own, want)
		}
	}
	if len(own) != 5 || !strings.Contains(own[1], "from a page") {
		t.Errorf("%q", own)
	}
}
