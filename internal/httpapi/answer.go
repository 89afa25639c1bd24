package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/gateway"
)

// Header values that most answers share; a handler never changes them.
var (
	jsonType  = []string{"application/json"}
	noStore   = []string{"no-store"}
	noSniff   = []string{"nosniff"}
	strictTLS = []string{"max-age=31536000; includeSubDomains"}
)

// autoLength is the longest body whose Content-Length net/http sets by itself.
const autoLength = 2048

// write sends an answer.
func (h *handler) write(w http.ResponseWriter, r *http.Request, a *gateway.Answer) {
	header := w.Header()
	header["Cache-Control"] = noStore
	if a.MaxAge > 0 {
		header["Cache-Control"] = []string{"public, max-age=" + strconv.Itoa(int(a.MaxAge/time.Second))}
	}
	header["X-Content-Type-Options"] = noSniff
	if h.secure || r.TLS != nil {
		header["Strict-Transport-Security"] = strictTLS
	}
	if a.RetryAfter > 0 {
		header["Retry-After"] = []string{retryAfter(a.RetryAfter)}
	}
	if l := a.Left; l != nil {
		header["X-Ratelimit-Limit"] = []string{strconv.Itoa(l.Limit)}
		header["X-Ratelimit-Remaining"] = []string{strconv.Itoa(l.Remaining)}
		header["X-Ratelimit-Reset"] = []string{retryAfter(l.Reset)}
	}
	if a.Stale > 0 {
		header["X-Coffer-Stale"] = []string{retryAfter(a.Stale)} // seconds
	}
	if a.Status == http.StatusMethodNotAllowed {
		header["Allow"] = []string{strings.Join(allow(a.Allow), ", ")}
	}
	if a.Body != nil || a.Status != http.StatusNoContent {
		switch {
		case a.ContentType == "" || a.ContentType == "application/json":
			header["Content-Type"] = jsonType
		default:
			header["Content-Type"] = []string{a.ContentType}
		}
		if len(a.Body) > autoLength || r.Method == http.MethodHead {
			header["Content-Length"] = []string{strconv.Itoa(len(a.Body))}
		}
	}
	h.headers.apply(header, a.Status)
	w.WriteHeader(a.Status)
	if len(a.Body) > 0 && r.Method != http.MethodHead && a.Status != http.StatusNoContent {
		// The client may be gone; there is nobody left to tell.
		_, _ = w.Write(a.Body)
	}
}

// retryAfter is whole seconds, rounded up: coming back early would be refused
// again.
func retryAfter(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// allow names the HTTP methods of the API's methods: PUT is another name of
// POST, and LIST can be asked for with GET.
func allow(methods []string) []string {
	var out []string
	for _, m := range methods {
		out = append(out, m)
		if m == http.MethodPost {
			out = append(out, http.MethodPut)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// errorsBody is Vault's shape of an error.
func errorsBody(messages ...string) []byte {
	body, err := json.Marshal(struct {
		Errors []string `json:"errors"`
	}{messages})
	if err != nil { // strings always marshal
		return []byte(`{"errors":[]}`)
	}
	return append(body, '\n')
}

// StatusHeaders are headers to add by status: under "default" for every answer,
// under "2xx" for a class, under "404" for one status. The more exact one wins.
type StatusHeaders map[string]http.Header

// Validate says which key or header is wrong.
func (s StatusHeaders) Validate() error {
	for key, headers := range s {
		if key != "default" && !isClass(key) && !isStatus(key) {
			return fmt.Errorf("%q is neither \"default\" nor a status (\"404\") nor a class of them (\"4xx\")", key)
		}
		for name := range headers {
			if strings.HasPrefix(http.CanonicalHeaderKey(name), "X-Vault-") {
				return fmt.Errorf("%q cannot be set: X-Vault- headers are the protocol's", name)
			}
		}
	}
	return nil
}

func isClass(key string) bool {
	return len(key) == 3 && key[0] >= '1' && key[0] <= '5' && key[1:] == "xx"
}

func isStatus(key string) bool {
	n, err := strconv.Atoi(key)
	return err == nil && n >= 100 && n <= 599
}

// headerPlan is StatusHeaders laid out for lookup; nil adds nothing.
type headerPlan struct {
	all     http.Header
	classes [6]http.Header
	exact   map[int]http.Header
}

func planHeaders(s StatusHeaders) *headerPlan {
	if len(s) == 0 {
		return nil
	}
	p := &headerPlan{exact: map[int]http.Header{}}
	for key, headers := range s {
		canonical := http.Header{}
		for name, values := range headers {
			canonical[http.CanonicalHeaderKey(name)] = values
		}
		switch {
		case key == "default":
			p.all = canonical
		case isClass(key):
			p.classes[key[0]-'0'] = canonical
		case isStatus(key):
			n, _ := strconv.Atoi(key)
			p.exact[n] = canonical
		}
	}
	return p
}

// apply adds the headers for a status. What the protocol sets itself stays.
func (p *headerPlan) apply(header http.Header, status int) {
	if p == nil {
		return
	}
	layers := [3]http.Header{p.exact[status], nil, p.all}
	if class := status / 100; class > 0 && class < len(p.classes) {
		layers[1] = p.classes[class]
	}
	for _, layer := range layers {
		for name, values := range layer {
			if _, there := header[name]; !there {
				header[name] = values
			}
		}
	}
}
