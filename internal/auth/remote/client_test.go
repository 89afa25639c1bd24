package remote

import (
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestClient(t *testing.T) {
	s := newServer(t)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	c, err := NewClient(ca, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send := func(c *Client, url string) (Answer, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		return c.Send(r)
	}
	if got, err := send(c, s.URL+"/echo"); err != nil || got.Status != 200 || string(got.Body) != "POST   body" {
		t.Errorf("%+v %v", got, err)
	}
	// A redirect is an answer like any other, and is not followed.
	if got, err := send(c, s.URL+"/hop/3"); err != nil || got.Status != http.StatusFound {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := send(c, s.URL+"/secret"); err != nil || got.Status != http.StatusForbidden {
		t.Errorf("%+v %v", got, err)
	}
	for path, want := range map[string]string{"/long/100": "", "/long/101": "longer than 100 bytes", "/cut": "unexpected EOF"} {
		_, err := send(c, s.URL+path)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	other, err := NewClient("", 100)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := send(other, s.URL+"/echo"); err == nil {
		t.Error("a server is believed whose authority nobody knows")
	}
	if _, err := NewClient("x", 1); err == nil {
		t.Error("no certificate is taken for one")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.http.Timeout = 1e8
	if _, err := send(c, "http://"+l.Addr().String()); err == nil || !strings.Contains(err.Error(), "does not answer within") {
		t.Error(err)
	}
}

func TestSecure(t *testing.T) {
	for text, want := range map[string]bool{
		"https://x": true, "http://127.0.0.1:1/": true, "http://localhost": true, "http://[::1]:1": true,
		"http://x": false, "http://127.0.0.1.evil.example": false, "http://localhost.example": false, "": false, "ftp://localhost": false, "https://a@x": false,
	} {
		if _, err := Secure(text); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}
