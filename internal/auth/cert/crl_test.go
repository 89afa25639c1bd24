package cert

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/auth/cert/certtest"
	"github.com/cofferhq/coffer/internal/storage"
)

// upload writes a list; the text is PEM, or DER in base64.
func (s *server) upload(status int, name, text string) {
	s.t.Helper()
	quoted, _ := json.Marshal(text)
	s.Must(s.t, status, "POST", "crls/"+name, `{"crl":`+string(quoted)+`}`)
}

func crlPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func (s *server) rows(prefix string) (keys []string) {
	s.t.Helper()
	err := s.Storage.View(s.t.Context(), func(r storage.Reader) error {
		return storage.All(r, prefix, func(e storage.Entry) error { keys = append(keys, e.Key); return nil })
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

func TestRevoked(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	mid := ca.Intermediate(t, "mid")
	s.role("r", certtest.PEM(ca.Cert), "")
	good, bad, below := ca.Client(t, "good"), ca.Client(t, "bad"), mid.Client(t, "below")
	for _, p := range []tls.Certificate{good, bad, below} {
		s.accepted(p, "", "r")
	}
	s.upload(204, "ca", crlPEM(ca.CRL(t, 1, bad.Leaf.SerialNumber)))
	s.refused(bad, "", unfit)
	s.refused(bad, "r", unfit)
	s.accepted(good, "", "r")
	// An authority in the middle takes along what it issued.
	s.upload(204, "mid", base64.StdEncoding.EncodeToString(ca.CRL(t, 1, mid.Cert.SerialNumber)))
	s.refused(below, "", unfit)
	s.accepted(good, "", "r")
	if data := s.Must(t, 200, "GET", "crls/CA", "").Data; data != fmt.Sprintf(`{"serials":{"%s":{}}}`, bad.Leaf.SerialNumber) {
		t.Error(data)
	}
	if data := s.Must(t, 200, "LIST", "crls", "").Data; data != `{"keys":["ca","mid"]}` {
		t.Error(data)
	}
	s.upload(204, "ca", crlPEM(ca.CRL(t, 2)))
	s.accepted(bad, "", "r")
	s.Must(t, 204, "DELETE", "crls/mid", "")
	s.accepted(below, "", "r")
	if rows := s.rows(partPrefix); len(rows) != 0 {
		t.Errorf("parts are left: %v", rows)
	}
	s.Must(t, 400, "GET", "crls/mid", "")
	s.Must(t, 400, "DELETE", "crls/mid", "")
	alone := certtest.Alone(t, "alone")
	s.role("alone", certtest.PEM(alone.Leaf), "")
	s.accepted(alone, "", "alone")
	s.upload(204, "alone", crlPEM(ca.CRL(t, 1, alone.Leaf.SerialNumber)))
	s.refused(alone, "", unfit)
}

// A list of any size is kept in parts, and its predecessor's are removed.
func TestLargeCRL(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	s.role("r", certtest.PEM(ca.Cert), "")
	bad := ca.Client(t, "bad")
	serials := []*big.Int{bad.Leaf.SerialNumber}
	for i := range int64(2*partSize + 1) {
		serials = append(serials, new(big.Int).Lsh(big.NewInt(1_000_000+i), 100))
	}
	for n := range int64(2) {
		s.upload(204, "ca", crlPEM(ca.CRL(t, n+1, serials...)))
		if rows := s.rows(partPrefix); len(rows) != 3 {
			t.Errorf("%d parts", len(rows))
		}
	}
	s.refused(bad, "", unfit)
}

func TestBadCRLs(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	der := ca.CRL(t, 1)
	for _, text := range []string{"nonsense", "", certtest.PEM(ca.Cert), crlPEM(der[:len(der)-1]), base64.StdEncoding.EncodeToString(der[1:]), crlPEM(ca.CRL(t, 1, new(big.Int).Lsh(big.NewInt(1), 8*maxSerial)))} {
		s.upload(400, "x", text)
	}
	for _, bad := range []string{`{}`, `{"url":"file:///etc/passwd"}`, `{"url":"nonsense"}`, `{"url":"http://127.0.0.1:1/ca.crl"}`, `{"url":"http://user:word@127.0.0.1:1/"}`, `{"crl":"x","url":"http://x"}`} {
		s.Must(t, 400, "POST", "crls/x", bad)
	}
	if rows := s.rows("crl"); len(rows) != 0 {
		t.Errorf("%v", rows)
	}
}

func TestFetchedCRL(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	bad := ca.Client(t, "bad")
	var answer atomic.Pointer[[]byte]
	say := func(der []byte) { answer.Store(&der) }
	pki := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if body := answer.Load(); body != nil {
			_, _ = w.Write(*body)
			return
		}
		http.Error(w, "away", http.StatusBadGateway)
	}))
	defer pki.Close()
	request := fmt.Sprintf(`{"url":%q}`, pki.URL+"/ca.crl")
	wants := func(want string) {
		t.Helper()
		if a := s.Do("POST", "crls/ca", request); a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%d %v, want %q", a.Status, a.Err, want)
		}
	}
	wants("it answers 502")
	say([]byte("garbage"))
	wants("it is no CRL of version 2")
	say(ca.CRL(t, 1))
	wants("signed by no authority of a role")
	s.role("r", certtest.PEM(ca.Cert), "")
	say(certtest.Root(t, "ca").CRL(t, 1)) // of the same name
	wants("signed by no authority of a role")
	say(make([]byte, maxCRL+1))
	wants("longer than")
	say(ca.CRL(t, 1))
	s.Must(t, 204, "POST", "crls/ca", request)
	s.accepted(bad, "", "r")
	if data := s.Must(t, 200, "GET", "crls/ca", "").Data; !strings.Contains(data, pki.URL) {
		t.Error(data)
	}

	m := s.State.(*Method)
	due := func() {
		t.Helper()
		_, err := s.Storage.Update(t.Context(), func(txn storage.Txn) error {
			list, err := storage.Load[crl](txn, crlPrefix+"ca")
			if err != nil {
				return err
			}
			list.TryAt = time.Now().Add(-time.Second)
			return storage.Save(txn, crlPrefix+"ca", list)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}
	say(ca.CRL(t, 2, bad.Leaf.SerialNumber))
	if err := m.refresh(t.Context()); err != nil { // it is not due
		t.Error(err)
	}
	s.accepted(bad, "", "r")
	due()
	s.refused(bad, "", unfit)
	for _, body := range [][]byte{ca.CRL(t, 1), []byte("garbage"), certtest.Root(t, "ca").CRL(t, 9)} { // what an attacker would send
		say(body)
		due()
		s.refused(bad, "", unfit)
	}
	answer.Store(nil)
	due()
	s.refused(bad, "", unfit)
	say(ca.CRL(t, 3))
	due()
	s.accepted(bad, "", "r")
	if rows := s.rows(partPrefix); len(rows) != 0 {
		t.Errorf("parts are left: %v", rows)
	}
}

// Parts that a node left behind when it stopped are removed, and no others.
func TestSweep(t *testing.T) {
	s := newServer(t)
	ca := certtest.Root(t, "ca")
	s.upload(204, "ca", crlPEM(ca.CRL(t, 1, big.NewInt(7))))
	m := s.State.(*Method)
	_, err := s.Storage.Update(t.Context(), func(txn storage.Txn) error {
		for n := range 3 {
			id := uuid.Must(uuid.NewV7()).String()
			if err := errors.Join(storage.Save(txn, partKey(id, 0), [][]byte{{byte(n)}}), storage.Save(txn, partKey(id, 1), [][]byte{{byte(n)}})); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.sweep(t.Context(), time.Now().Add(abandoned-time.Minute)); err != nil || len(s.rows(partPrefix)) != 7 {
		t.Errorf("%d rows, %v", len(s.rows(partPrefix)), err)
	}
	if err := m.sweep(t.Context(), time.Now().Add(abandoned+time.Second)); err != nil || len(s.rows(partPrefix)) != 1 {
		t.Errorf("%d rows are left, %v", len(s.rows(partPrefix)), err)
	}
}

// What the reference shows is answered.
func TestExamples(t *testing.T) {
	ca := certtest.Root(t, "ca")
	pki := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(ca.CRL(t, 1)) }))
	defer pki.Close()
	for _, spec := range Kind.Spec().Routes {
		s := newServer(t)
		s.role("web", certtest.PEM(ca.Cert), "")
		s.upload(204, "ca", crlPEM(ca.CRL(t, 1)))
		a := s.As(caller(t, ca.Client(t, "x")), spec.Method, spec.Example.Path, strings.ReplaceAll(spec.Example.Request, "https://pki.example.com", pki.URL))
		if a.Err != nil || a.Spec.Pattern != spec.Pattern || len(a.Warnings) > 0 || spec.Example.Response != "" && spec.Example.Response != a.Data {
			t.Errorf("%s %s: %v, %v %s", spec.Method, spec.Example.Path, a.Err, a.Warnings, a.Data)
		}
		for _, f := range spec.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: the field %s has no doc", spec.Method, spec.Pattern, f.Name)
			}
		}
	}
}
