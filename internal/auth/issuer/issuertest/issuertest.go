// Package issuertest runs issuers of JSON web tokens for tests, over real TLS: one
// that signs whatever a test wants and can be made to fail in every way. It is for
// tests of what verifies tokens.
package issuertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is an issuer with discovery at URL and keys at URL/keys.
type Issuer struct {
	URL string
	CA  string // PEM of the authority of its certificate

	t       testing.TB
	server  *httptest.Server
	mu      sync.Mutex
	keys    []Key
	made    int
	instead http.HandlerFunc
	asked   map[string]int
}

// Key is a signing key.
type Key struct {
	ID, Algorithm string
	Private       crypto.Signer
}

// New starts an issuer with one key of RS256. It ends with the test.
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t, asked: map[string]int{}}
	i.server = httptest.NewTLSServer(http.HandlerFunc(i.serve))
	t.Cleanup(i.server.Close)
	i.URL = i.server.URL
	i.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw}))
	i.Rotate("RS256")
	return i
}

// Stop ends the issuer at once: nobody can reach it.
func (i *Issuer) Stop() {
	i.server.CloseClientConnections()
	i.server.Close()
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.asked[r.URL.Path]++
	instead := i.instead
	i.mu.Unlock()
	if instead != nil {
		instead(w, r)
		return
	}
	i.Serve(w, r)
}

// Serve answers as an issuer does.
func (i *Issuer) Serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys",
			"authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	case "/keys":
		_, _ = w.Write(i.Document())
	default:
		http.NotFound(w, r)
	}
}

// Answer makes fn answer instead, nil the issuer again.
func (i *Issuer) Answer(fn http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.instead = fn
}

// Asked is how often a path was asked for.
func (i *Issuer) Asked(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[path]
}

// Document is the key document.
func (i *Issuer) Document() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Algorithm: k.Algorithm, Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return text
}

// Rotate withdraws all keys and makes a new one.
func (i *Issuer) Rotate(algorithm string) Key {
	k := NewKey(i.t, algorithm)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.made++
	k.ID = fmt.Sprintf("key-%d", i.made)
	i.keys = []Key{k}
	return k
}

// Publish adds a key.
func (i *Issuer) Publish(k Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, k)
}

// Key is the newest key.
func (i *Issuer) Key() Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// Claims are the usual claims with others over them: issued now by this issuer, for
// five minutes. A nil leaves a claim out.
func (i *Issuer) Claims(others map[string]any) map[string]any {
	now := time.Now().Unix()
	claims := map[string]any{"iss": i.URL, "sub": "somebody", "iat": now, "exp": now + 300}
	maps.Copy(claims, others)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// Sign signs the usual claims with others over them.
func (i *Issuer) Sign(others map[string]any) string {
	text, err := json.Marshal(i.Claims(others))
	if err != nil {
		panic(err)
	}
	return i.Key().Sign(text)
}

// rsaKeys are few, since they take long to make.
var rsaKeys = sync.OnceValue(func() (keys [4]*rsa.PrivateKey) {
	var all sync.WaitGroup
	for n := range keys {
		all.Go(func() {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			keys[n] = key
		})
	}
	all.Wait()
	return keys
})

var next struct {
	sync.Mutex
	n int
}

// NewKey returns a key for an algorithm. Of RSA there are four, in turn.
func NewKey(t testing.TB, algorithm string) Key {
	t.Helper()
	k := Key{ID: "a-key", Algorithm: algorithm}
	var err error
	switch algorithm {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		next.Lock()
		k.Private = rsaKeys()[next.n%4]
		next.n++
		next.Unlock()
	case "ES256":
		k.Private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		k.Private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		k.Private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, e := ed25519.GenerateKey(rand.Reader)
		k.Private, err = private, e
	default:
		t.Fatalf("there is no key for %s", algorithm)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Sign signs a payload as it is.
func (k Key) Sign(payload []byte) string {
	options := (&jose.SignerOptions{}).WithType("JWT")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm), Key: jose.JSONWebKey{Key: k.Private, KeyID: k.ID}}, options)
	if err != nil {
		panic(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

// PublicPEM is a key's public half in PEM.
func PublicPEM(t testing.TB, k Key) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// PrivatePEM is a key in PEM.
func PrivatePEM(t testing.TB, k Key) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// SmallRSA is a public key of 1024 bits in PEM.
func SmallRSA(t testing.TB) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return PublicPEM(t, Key{Private: key})
}

// SignShared signs a payload with HS256.
func SignShared(t testing.TB, secret, payload []byte) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
