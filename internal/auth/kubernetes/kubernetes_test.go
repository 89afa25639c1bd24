package kubernetes

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/auth/issuer/issuertest"
	"github.com/cofferhq/coffer/internal/auth/kubernetes/kubetest"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type server struct {
	*enginetest.Engine
	t    testing.TB
	kube *kubetest.Server
}

type fields = map[string]any

func text(f fields) string {
	out, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// newServer asks a cluster with the namespaces shop and lab, the service accounts
// shop/web, lab/web and coffer/reviewer, of which the last may review tokens.
func newServer(t testing.TB, config fields) *server {
	t.Helper()
	e := memory.New()
	t.Cleanup(func() { _ = e.Close() })
	s := &server{enginetest.Open(t, Kind.Spec(), enginetest.Options{Storage: e, Mount: engine.Mount{Path: "auth/kubernetes/"}}), t, kubetest.New(t)}
	s.method().own.folder = t.TempDir()
	s.kube.Create("shop", "web")
	s.kube.Create("lab", "web")
	s.kube.Create("coffer", "reviewer")
	s.kube.Allow("coffer", "reviewer")
	s.config(config)
	s.role(nil)
	return s
}

func (s *server) method() *Method { return s.State.(*Method) }

func (s *server) config(f fields) {
	s.t.Helper()
	all := fields{"kubernetes_host": s.kube.URL, "kubernetes_ca_cert": s.kube.CA, "token_reviewer_jwt": s.kube.Token("coffer", "reviewer", time.Hour)}
	maps.Copy(all, f)
	s.Must(s.t, 204, "POST", "config", text(all))
}

func (s *server) role(f fields) {
	s.t.Helper()
	all := fields{"bound_service_account_names": "web", "bound_service_account_namespaces": "shop", "audience": "coffer", "token_policies": "web", "token_ttl": "10m"}
	maps.Copy(all, f)
	s.Must(s.t, 204, "POST", "role/web", text(all))
}

func (s *server) login(token string) (auth.Login, error) {
	a := s.As(route.Caller{}, "POST", "login", text(fields{"role": "Web", "jwt": token}))
	out, _ := a.Output.(auth.Login)
	return out, a.Err
}

func (s *server) accepted(token string) auth.Login {
	s.t.Helper()
	out, err := s.login(token)
	if err != nil {
		s.t.Error(err)
	}
	return out
}

func (s *server) refused(kind fault.Kind, token, want string) {
	s.t.Helper()
	_, err := s.login(token)
	if !fault.Is(err, kind) || !strings.Contains(fault.From(err).Message, want) {
		s.t.Errorf("%v, want %q", err, want)
	}
	if err != nil && token != "" && strings.Contains(err.Error(), token) {
		s.t.Error("the error holds the token")
	}
}

// web is a good token.
func (s *server) web() string { return s.kube.Token("shop", "web", time.Hour, "coffer") }

func TestLogin(t *testing.T) {
	s := newServer(t, nil)
	uid := s.kube.Create("shop", "web")
	got := s.accepted(s.web() + "\n")
	want := map[string]string{
		"role": "web", "service_account_uid": uid, "service_account_name": "web", "service_account_namespace": "shop", "service_account_secret_name": "",
	}
	if got.Alias != uid || got.DisplayName != "kubernetes-shop-web" || got.TTL.Duration() != 10*time.Minute || !maps.Equal(got.Metadata, want) || !maps.Equal(got.AliasMetadata, want) {
		t.Errorf("%+v", got)
	}
	s.role(fields{"alias_name_source": byName})
	if got := s.accepted(s.web()); got.Alias != "shop/web" {
		t.Errorf("%+v", got)
	}
	renewed, err := s.method().Renew(t.Context(), route.Caller{}, got)
	if err != nil || renewed.TTL.Duration() != 10*time.Minute {
		t.Errorf("%+v %v", renewed, err)
	}
	s.Must(t, 204, "DELETE", "role/web", "")
	if _, err := s.method().Renew(t.Context(), route.Caller{}, got); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
	s.refused(fault.Invalid, s.web(), `invalid role name "web"`)
}

func TestRefusedTokens(t *testing.T) {
	s := newServer(t, nil)
	stranger := issuertest.NewKey(t, "RS256")
	stranger.ID = s.kube.Key.ID
	before := s.kube.Reviews()
	s.refused(fault.Invalid, "", "missing jwt")
	for want, token := range map[string]string{
		"the token is not a signed JSON web token": "x",
		"the token is expired":                     s.kube.Token("shop", "web", -2*time.Minute, "coffer"),
		"the token is for the audience":            s.kube.Token("shop", "web", time.Hour, "other"),
		"namespace not authorized":                 s.kube.Token("lab", "web", time.Hour, "coffer"),
		"service account name not authorized":      s.kube.Token("coffer", "reviewer", time.Hour, "coffer"),
		"not of a service account":                 s.kube.Key.Sign([]byte(text(fields{"sub": "ada", "aud": "coffer", "exp": time.Now().Add(time.Hour).Unix()}))),
		"a shared secret":                          issuertest.SignShared(t, []byte("a secret that is long enough ...."), s.kube.Claims("shop", "web", time.Hour, "coffer")),
		"names no service account": s.kube.Key.Sign([]byte(text(fields{"aud": "coffer", "exp": time.Now().Add(time.Hour).Unix(),
			"kubernetes.io": fields{"namespace": "../../x", "serviceaccount": fields{"name": "web", "uid": "1"}}}))),
	} {
		s.refused(fault.Denied, token, want)
	}
	if n := s.kube.Reviews(); n != before {
		t.Errorf("the cluster was asked %d times about tokens that cannot be", n-before)
	}
	s.refused(fault.Denied, stranger.Sign(s.kube.Claims("shop", "web", time.Hour, "coffer")), "lookup failed")
	old := s.web()
	s.accepted(old)
	s.kube.Create("shop", "web") // another of the name
	s.refused(fault.Denied, old, "lookup failed")
	s.accepted(s.web())
	last := s.web()
	s.kube.Delete("shop", "web")
	s.refused(fault.Denied, last, "lookup failed")
}

// A role without an audience takes any token of the account, as Vault's do.
func TestWithoutAudience(t *testing.T) {
	s := newServer(t, nil)
	s.role(fields{"audience": ""})
	s.accepted(s.kube.Token("shop", "web", time.Hour, "anything"))
	s.accepted(s.kube.Token("shop", "web", time.Hour))
	secret := s.kube.SecretToken("shop", "web", "web-token-1")
	if got := s.accepted(secret); got.Metadata["service_account_secret_name"] != "web-token-1" {
		t.Errorf("%+v", got)
	}
	s.role(nil)
	s.refused(fault.Denied, secret, "for no audience")
	s.role(fields{"audience": ""})
	s.config(fields{"disable_iss_validation": false, "issuer": s.kube.URL})
	s.refused(fault.Denied, secret, "the token is of the issuer")
	s.accepted(s.web())
	s.config(fields{"disable_iss_validation": false})
	s.refused(fault.Denied, s.web(), "the token is of the issuer")
	s.accepted(secret)
}

func TestBounds(t *testing.T) {
	s := newServer(t, nil)
	s.kube.Create("shop-2", "web-7")
	other := s.kube.Token("shop-2", "web-7", time.Hour, "coffer")
	s.refused(fault.Denied, other, "not authorized")
	s.role(fields{"bound_service_account_names": "web-*", "bound_service_account_namespaces": "x,shop*"})
	s.accepted(other)
	s.refused(fault.Denied, s.web(), "service account name not authorized")
	s.role(fields{"bound_service_account_names": "*", "bound_service_account_namespaces": "*"})
	s.accepted(s.web())
	s.role(fields{"bound_service_account_names": "*", "bound_service_account_namespaces": "", "bound_service_account_namespace_selector": "matchLabels:\n  team: shop"})
	s.kube.Label("shop", map[string]string{"team": "shop", "x": "y"})
	s.kube.Label("shop-2", map[string]string{"team": "lab"})
	s.accepted(s.web())
	s.refused(fault.Denied, other, "namespace not authorized")
	s.refused(fault.Unavailable, s.kube.Token("lab", "web", time.Hour, "coffer"), "answered 404")
	for want, bad := range map[string]fields{
		`"bound_service_account_names" can not be empty`:      {"bound_service_account_names": ""},
		`"bound_service_account_namespaces" can not be empty`: {"bound_service_account_namespaces": "", "bound_service_account_namespace_selector": ""},
		`can not mix "*" with values`:                         {"bound_service_account_names": "*,web"},
		`invalid alias_name_source`:                           {"alias_name_source": "x"},
		`match expressions are not supported`:                 {"bound_service_account_namespace_selector": `{"matchExpressions":[{"key":"a","operator":"Exists"}]}`},
		`it must be an object`:                                {"bound_service_account_namespace_selector": `{"matchLabels":{"a":"b"},"x":1}`},
		`would fit every namespace`:                           {"bound_service_account_namespace_selector": `{}`},
		"at most 1000 entries":                                {"bound_service_account_names": strings.Repeat("a,", maxBound) + "b"},
	} {
		if a := s.Do("POST", "role/web", text(bad)); a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, a.Err, want)
		}
	}
}

func TestAnnotations(t *testing.T) {
	s := newServer(t, fields{"use_annotations_as_alias_metadata": true})
	s.kube.Annotate("shop", "web", map[string]string{annotated + "team": "shop", "other": "x", annotated + "role": "admin"})
	got := s.accepted(s.web())
	if got.AliasMetadata["team"] != "shop" || got.AliasMetadata["role"] != "web" || got.AliasMetadata["other"] != "" || got.Metadata["team"] != "" {
		t.Errorf("%+v", got)
	}
	s.kube.Annotate("shop", "web", map[string]string{annotated + "team": strings.Repeat("x", maxAnnotation+1)})
	s.refused(fault.Invalid, s.web(), "annotations")
}

// Without a reviewer's token the caller's own asks, if the cluster lets it.
func TestOwnReview(t *testing.T) {
	s := newServer(t, fields{"token_reviewer_jwt": ""})
	s.role(fields{"audience": ""})
	token := s.kube.Token("shop", "web", time.Hour)
	s.refused(fault.Denied, token, "system:auth-delegator")
	s.kube.Allow("shop", "web")
	s.accepted(token)
	s.refused(fault.Denied, s.web(), "service account unauthorized") // which is not for the API server
	s.role(fields{"bound_service_account_namespaces": "", "bound_service_account_namespace_selector": `{"matchLabels":{"a":"b"}}`, "audience": ""})
	s.refused(fault.Unavailable, token, "token_reviewer_jwt")
}

// In a pod, the pod's own token and authority count, and are read again.
func TestOwnFiles(t *testing.T) {
	s := newServer(t, fields{"token_reviewer_jwt": "", "kubernetes_ca_cert": ""})
	m, now := s.method(), time.Now()
	m.own.now = func() time.Time { return now }
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(m.own.folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.refused(fault.Unavailable, s.web(), "cannot be asked")
	write(ownCA, s.kube.CA)
	write(ownToken, s.kube.Token("coffer", "reviewer", -time.Minute)+"\n")
	s.refused(fault.Unavailable, s.web(), "cannot be asked") // not read again yet
	now = now.Add(readAgain)
	s.refused(fault.Unavailable, s.web(), "does not know this server's own token (401)")
	write(ownToken, s.kube.Token("shop", "web", time.Hour))
	now = now.Add(readAgain)
	s.refused(fault.Unavailable, s.web(), "system:auth-delegator")
	write(ownToken, s.kube.Token("coffer", "reviewer", time.Hour))
	now = now.Add(readAgain)
	s.accepted(s.web())
	s.config(fields{"token_reviewer_jwt": "", "disable_local_ca_jwt": true})
	s.refused(fault.Denied, s.web(), "service account unauthorized")
}

// A cluster that is away or answers nonsense denies nobody.
func TestClusterAway(t *testing.T) {
	s := newServer(t, nil)
	say := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}
	}
	review := func(status string) string {
		return `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":` + status + `}`
	}
	user := `"user":{"username":"system:serviceaccount:shop:web","uid":"1"}`
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   fault.Kind
		want   string
	}{
		"500":            {say(500, "{}"), fault.Unavailable, "answered 500"},
		"a page":         {say(200, "<html>"), fault.Unavailable, "is no Kubernetes API server"},
		"nothing":        {say(201, ""), fault.Unavailable, "is no Kubernetes API server"},
		"something else": {say(201, `{"kind":"Pod"}`), fault.Unavailable, "no TokenReview"},
		"a bomb":         {say(201, strings.Repeat(" ", maxAnswer+1)), fault.Unavailable, "longer than"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
		}, fault.Unavailable, "answered 307"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("{"))
		}, fault.Unavailable, "cannot be asked"},
		"not known":        {say(201, review(`{"authenticated":false}`)), fault.Denied, "service account jwt not valid"},
		"no audiences":     {say(201, review(`{"authenticated":true,`+user+`}`)), fault.Denied, "for the audience"},
		"other audiences":  {say(201, review(`{"authenticated":true,`+user+`,"audiences":["x"]}`)), fault.Denied, "for the audience"},
		"a person":         {say(201, review(`{"authenticated":true,"user":{"username":"ada"},"audiences":["coffer"]}`)), fault.Denied, "unexpected username format"},
		"a node":           {say(201, review(`{"authenticated":true,"user":{"username":"a:b:shop:web"},"audiences":["coffer"]}`)), fault.Denied, "not a service account"},
		"somebody else":    {say(201, review(`{"authenticated":true,"user":{"username":"system:serviceaccount:shop:db"},"audiences":["coffer"]}`)), fault.Denied, "another service account"},
		"another uid":      {say(201, review(`{"authenticated":true,`+user+`,"audiences":["coffer"]}`)), fault.Denied, "was deleted"},
		"an error besides": {say(201, review(`{"authenticated":true,"error":"x",`+user+`,"audiences":["coffer"]}`)), fault.Denied, "not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.kube.Answer(c.answer)
			s.refused(c.kind, s.web(), c.want)
		})
	}
	s.t = t
	s.kube.Answer(nil)
	s.accepted(s.web())
	s.kube.Stop()
	s.refused(fault.Unavailable, s.web(), "cannot be asked")
}

func TestOffline(t *testing.T) {
	for name, keys := range map[string]func(k *kubetest.Server) fields{
		"discovery": func(k *kubetest.Server) fields {
			return fields{"oidc_discovery_url": k.URL, "oidc_discovery_ca_pem": k.CA}
		},
		"keys": func(k *kubetest.Server) fields {
			return fields{"jwks_url": k.URL + "/openid/v1/jwks", "jwks_ca_pem": k.CA}
		},
		"pem": func(k *kubetest.Server) fields { return fields{"pem_keys": issuertest.PublicPEM(t, k.Key)} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, nil)
			f := keys(s.kube)
			f["offline_validation"] = true
			f["kubernetes_host"], f["token_reviewer_jwt"], f["kubernetes_ca_cert"] = "", "", ""
			s.config(f)
			s.accepted(s.web())
			stranger := issuertest.NewKey(t, "RS256")
			stranger.ID = s.kube.Key.ID
			s.refused(fault.Denied, stranger.Sign(s.kube.Claims("shop", "web", time.Hour, "coffer")), "signature")
			s.refused(fault.Denied, s.kube.Token("shop", "web", -time.Hour, "coffer"), "expired")
			s.refused(fault.Denied, s.kube.Token("shop", "web", time.Hour, "x"), "the audience")
			s.role(fields{"audience": ""})
			s.refused(fault.Invalid, s.web(), "the role has no audience")
			s.role(fields{"audience": s.kube.URL})
			s.refused(fault.Denied, s.kube.SecretToken("shop", "web", "s"), "no expiry")
			s.role(fields{"bound_service_account_namespaces": "", "bound_service_account_namespace_selector": `{"matchLabels":{"a":"b"}}`})
			s.refused(fault.Unavailable, s.web(), "needs the API server")
			if s.kube.Reviews() != 0 {
				t.Error("the cluster was asked")
			}
		})
	}
}

// With keys and a cluster, both must agree.
func TestKeysAndReview(t *testing.T) {
	s := newServer(t, nil)
	s.config(fields{"pem_keys": issuertest.PublicPEM(t, s.kube.Key)})
	s.accepted(s.web())
	s.role(fields{"audience": ""})
	s.accepted(s.kube.SecretToken("shop", "web", "s"))
	token := s.web()
	s.kube.Delete("shop", "web")
	s.refused(fault.Denied, token, "lookup failed")
	s.kube.Create("shop", "web")
	other := issuertest.NewKey(t, "ES256")
	s.config(fields{"pem_keys": issuertest.PublicPEM(t, other)})
	before := s.kube.Reviews()
	s.refused(fault.Denied, s.web(), "does not make signatures of RS256")
	if s.kube.Reviews() != before {
		t.Error("the cluster was asked about a token of another")
	}
}

func TestConfig(t *testing.T) {
	s := newServer(t, nil)
	s.Must(t, 204, "POST", "config", `{"kubernetes_host":"10.0.0.1:6443","token_reviewer_jwt":"a-secret"}`)
	a := s.Must(t, 200, "GET", "config", "")
	if strings.Contains(a.Data, "a-secret") || !strings.Contains(a.Data, `"token_reviewer_jwt_set":true`) || !strings.Contains(a.Data, `"disable_iss_validation":true`) ||
		!strings.Contains(a.Data, `"kubernetes_host":"https://10.0.0.1:6443"`) || !strings.Contains(a.Data, `"pem_keys":[]`) {
		t.Error(a.Data)
	}
	for want, bad := range map[string]fields{
		"no host provided":      {},
		"an https URL":          {"kubernetes_host": "http://10.0.0.1"},
		"kubernetes_ca_cert: ":  {"kubernetes_host": "https://x", "kubernetes_ca_cert": "x"},
		"must be given when":    {"kubernetes_host": "https://x", "disable_local_ca_jwt": true},
		"not from several":      {"kubernetes_host": "https://x", "jwks_url": "https://x", "oidc_discovery_url": "https://x"},
		"needs the cluster's":   {"offline_validation": true},
		"a public key":          {"kubernetes_host": "https://x", "pem_keys": "x"},
		"cannot be fetched":     {"kubernetes_host": "https://x", "jwks_url": "http://127.0.0.1:1/"},
		"it holds a line break": {"kubernetes_host": "https://x", "token_reviewer_jwt": "a\nb"},
		"write kubernetes_host": {"offline_validation": true, "pem_keys": issuertest.PublicPEM(t, s.kube.Key), "use_annotations_as_alias_metadata": true},
		"at most":               {"kubernetes_host": "https://x", "token_reviewer_jwt": strings.Repeat("x", maxSetting+1)},
	} {
		if a := s.Do("POST", "config", text(bad)); a.Status != 400 || !strings.Contains(a.Err.Error(), want) {
			t.Errorf("%v: %v, want %q", bad, a.Err, want)
		}
	}
	if again := s.Must(t, 200, "GET", "config", ""); again.Data != a.Data {
		t.Error("a refused write changed something")
	}
	s.Must(t, 204, "POST", "config", `{"kubernetes_host":"https://x","jwks_url":"http://127.0.0.1:1/","skip_jwks_validation":true}`)
	fresh := enginetest.Open(t, Kind.Spec(), enginetest.Options{})
	fresh.Must(t, 404, "GET", "config", "")
	fresh.Must(t, 204, "POST", "role/web", `{"bound_service_account_names":"a","bound_service_account_namespaces":"b"}`)
	if a := fresh.Do("POST", "login", `{"role":"web","jwt":"x"}`); !strings.Contains(a.Err.Error(), "could not load backend configuration") {
		t.Error(a.Err)
	}
}

func TestExamples(t *testing.T) {
	for _, spec := range Kind.Spec().Routes {
		for _, f := range spec.Fields() {
			if f.Doc == "" {
				t.Errorf("%s %s: the field %s has no doc", spec.Method, spec.Pattern, f.Name)
			}
		}
		s := newServer(t, nil)
		s.role(fields{"bound_service_account_namespaces": "shop,shop-*"})
		request := strings.Replace(spec.Example.Request, "header.claims.signature", s.web(), 1)
		a := s.Do(spec.Method, spec.Example.Path, request)
		if a.Err != nil || a.Spec.Pattern != spec.Pattern || len(a.Warnings) > 0 || spec.Example.Response != "" && spec.Example.Response != a.Data {
			t.Errorf("%s %s: %v, %v %s", spec.Method, spec.Example.Path, a.Err, a.Warnings, a.Data)
		}
	}
}
