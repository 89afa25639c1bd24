// Package kubetest runs, for tests, as much of a Kubernetes API server as the auth
// method asks, over real TLS: it makes service account tokens, reviews them as the
// API's documents say (authentication.k8s.io/v1), and shows namespaces, service
// accounts and its public keys. It is no cluster.
package kubetest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
)

// Server is the API server. Its issuer and its own audience are URL.
type Server struct {
	URL string
	CA  string // PEM of the authority of its certificate
	Key issuertest.Key

	server   *httptest.Server
	mu       sync.Mutex
	accounts map[string]*account // by namespace/name
	labels   map[string]map[string]string
	instead  http.HandlerFunc
	reviews  int
}

type account struct {
	uid         string
	secrets     []string
	annotations map[string]string
	allowed     bool
}

// New starts an API server without service accounts. It ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{Key: issuertest.NewKey(t, "RS256"), accounts: map[string]*account{}, labels: map[string]map[string]string{}}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it are part of tests
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.URL = s.server.URL
	s.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}))
	return s
}

// Stop ends the server at once.
func (s *Server) Stop() {
	s.server.CloseClientConnections()
	s.server.Close()
}

// Answer makes fn answer instead, nil the server again.
func (s *Server) Answer(fn http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = fn
}

// Reviews is how often a review was asked for.
func (s *Server) Reviews() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reviews
}

// Create makes a service account, or another in the place of one, and returns its
// uid.
func (s *Server) Create(namespace, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	h := hex.EncodeToString(id)
	uid := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	s.accounts[namespace+"/"+name] = &account{uid: uid}
	return uid
}

// Allow binds a service account to the cluster role system:auth-delegator, and lets
// it read namespaces and service accounts.
func (s *Server) Allow(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[namespace+"/"+name].allowed = true
}

// Annotate sets a service account's annotations.
func (s *Server) Annotate(namespace, name string, to map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[namespace+"/"+name].annotations = to
}

// Label sets a namespace's labels.
func (s *Server) Label(namespace string, to map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.labels[namespace] = to
}

// Delete deletes a service account and with it its secrets.
func (s *Server) Delete(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.accounts, namespace+"/"+name)
}

// Token makes a token as TokenRequest and projected volumes do; without audiences it
// is for the server itself.
func (s *Server) Token(namespace, name string, life time.Duration, audiences ...string) string {
	return s.Key.Sign(s.Claims(namespace, name, life, audiences...))
}

// Claims are the claims of such a token.
func (s *Server) Claims(namespace, name string, life time.Duration, audiences ...string) []byte {
	if len(audiences) == 0 {
		audiences = []string{s.URL}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	text, _ := json.Marshal(map[string]any{
		"iss": s.URL, "sub": "system:serviceaccount:" + namespace + ":" + name, "aud": audiences,
		"iat": now.Add(-time.Second).Unix(), "nbf": now.Add(-time.Second).Unix(), "exp": now.Add(life).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": namespace, "serviceaccount": map[string]any{"name": name, "uid": s.accounts[namespace+"/"+name].uid},
			"pod": map[string]any{"name": name + "-0", "uid": "3c4f8a52-2d44-4d3b-9d0a-2b1f0f6c8e11"},
		},
	})
	return text
}

// SecretToken makes a token that a secret holds, which does not end.
func (s *Server) SecretToken(namespace, name, secret string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[namespace+"/"+name]
	a.secrets = append(a.secrets, secret)
	const at = "kubernetes.io/serviceaccount/"
	text, _ := json.Marshal(map[string]any{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:" + namespace + ":" + name,
		at + "namespace": namespace, at + "service-account.name": name, at + "service-account.uid": a.uid, at + "secret.name": secret,
	})
	return s.Key.Sign(text)
}

// claims are those that the server reads of a token of its own.
type claims struct {
	jwt.Claims
	Bound struct {
		Namespace string `json:"namespace"`
		Account   struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
	Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	Name      string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
	Secret    string `json:"kubernetes.io/serviceaccount/secret.name"`
}

// user is whom the server knows a token as.
type user struct {
	name, uid string
	audiences []string
	account   *account
}

// authenticate is what a cluster does with a token.
func (s *Server) authenticate(token string, audiences []string) (user, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{"RS256"})
	if err != nil {
		return user{}, fmt.Errorf("invalid bearer token")
	}
	var c claims
	if err := parsed.Claims(s.Key.Private.Public(), &c); err != nil {
		return user{}, fmt.Errorf("invalid bearer token")
	}
	legacy := c.Namespace != ""
	if !legacy {
		c.Namespace, c.Name, c.UID = c.Bound.Namespace, c.Bound.Account.Name, c.Bound.Account.UID
		if err := c.ValidateWithLeeway(jwt.Expected{Issuer: s.URL, Time: time.Now()}, 0); err != nil || c.Expiry == nil {
			return user{}, fmt.Errorf("service account token has expired")
		}
	}
	mine := []string(c.Audience)
	if legacy {
		mine = []string{s.URL} // such tokens are for the API server
	}
	var both []string
	for _, a := range mine {
		if slices.Contains(audiences, a) {
			both = append(both, a)
		}
	}
	a := s.accounts[c.Namespace+"/"+c.Name]
	switch {
	case len(both) == 0:
		return user{}, fmt.Errorf("token audiences %q is invalid for the target audiences %q", mine, audiences)
	case a == nil || a.uid != c.UID || legacy && !slices.Contains(a.secrets, c.Secret):
		return user{}, fmt.Errorf("service account token has been invalidated")
	}
	return user{"system:serviceaccount:" + c.Namespace + ":" + c.Name, a.uid, both, a}, nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	instead := s.instead
	if strings.HasSuffix(r.URL.Path, "/tokenreviews") {
		s.reviews++
	}
	s.mu.Unlock()
	if instead != nil {
		instead(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer(w, 200, map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/openid/v1/jwks", "response_types_supported": []string{"id_token"}})
		return
	case "/openid/v1/jwks":
		answer(w, 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.Key.Private.Public(), KeyID: s.Key.ID, Algorithm: "RS256", Use: "sig"}}})
		return
	}
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	by, err := s.authenticate(bearer, []string{s.URL})
	switch {
	case err != nil:
		failure(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	case !by.account.allowed:
		failure(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("User %q cannot do that", by.name))
	case r.Method == http.MethodPost && r.URL.Path == "/apis/authentication.k8s.io/v1/tokenreviews":
		s.review(w, r)
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/"):
		s.read(w, strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/"))
	default:
		failure(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource")
	}
}

// review answers a TokenReview, with 201 as for every object that is created.
func (s *Server) review(w http.ResponseWriter, r *http.Request) {
	var in struct {
		APIVersion, Kind string
		Spec             struct {
			Token     string
			Audiences []string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Kind != "TokenReview" || in.APIVersion != "authentication.k8s.io/v1" {
		failure(w, http.StatusBadRequest, "BadRequest", "the object provided is unrecognized")
		return
	}
	audiences := in.Spec.Audiences
	if len(audiences) == 0 {
		audiences = []string{s.URL}
	}
	status := map[string]any{"user": map[string]any{}}
	if u, err := s.authenticate(in.Spec.Token, audiences); err != nil {
		status["error"] = err.Error()
	} else {
		status["authenticated"] = true
		status["user"] = map[string]any{"username": u.name, "uid": u.uid, "groups": []string{"system:serviceaccounts", "system:authenticated"}}
		status["audiences"] = u.audiences
	}
	answer(w, http.StatusCreated, map[string]any{
		"kind": in.Kind, "apiVersion": in.APIVersion, "metadata": map[string]any{}, "spec": map[string]any{"token": in.Spec.Token, "audiences": in.Spec.Audiences}, "status": status,
	})
}

// read answers a namespace or a service account of one.
func (s *Server) read(w http.ResponseWriter, path []string) {
	switch {
	case len(path) == 1 && s.labels[path[0]] != nil:
		answer(w, 200, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": path[0], "labels": s.labels[path[0]]}})
	case len(path) == 3 && path[1] == "serviceaccounts" && s.accounts[path[0]+"/"+path[2]] != nil:
		a := s.accounts[path[0]+"/"+path[2]]
		answer(w, 200, map[string]any{"kind": "ServiceAccount", "apiVersion": "v1", "metadata": map[string]any{"name": path[2], "namespace": path[0], "uid": a.uid, "annotations": a.annotations}})
	default:
		failure(w, http.StatusNotFound, "NotFound", "not found")
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func failure(w http.ResponseWriter, code int, reason, message string) {
	answer(w, code, map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "message": message, "reason": reason, "code": code})
}
