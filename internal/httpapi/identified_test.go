package httpapi

import (
	"net/http/httptest"
	"testing"
)

func TestAnswersNameTheirRequest(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	g := &recorder{}
	h := New(Options{Serve: g.Serve, Log: discard})
	r := httptest.NewRequest("GET", "/v1/a", nil)
	r.Header.Set("X-Request-Id", "mine")
	r.Header.Set("Traceparent", parent)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	got := w.Result().Header
	if id := got.Get("X-Coffer-Request-Id"); id == "" || id != g.requests()[0].ID {
		t.Errorf("the answer names request %q", id)
	}
	if got.Get("X-Request-Id") != "mine" || got.Get("Traceparent") != parent || got.Get("X-Correlation-Id") != "" {
		t.Errorf("the client's ids are answered as %v", got)
	}
	r = httptest.NewRequest("GET", "/v1/a", nil)
	r.Header.Set("X-Request-Id", "not\x01printable")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if id, there := w.Result().Header["X-Request-Id"]; there {
		t.Errorf("an id that is not recorded is answered as %q", id)
	}
}
