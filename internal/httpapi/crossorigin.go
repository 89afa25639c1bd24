package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

// pageMethods are what pages may ask for.
var pageMethods = []string{"DELETE", "GET", "LIST", "OPTIONS", "PATCH", "POST", "PUT"}

// crossOrigin answers what browsers ask before a page may call, marks answers to
// pages that may, and refuses pages that may not, whether or not they asked before.
// It reports whether the request is answered. Credentials of the browser's own, as
// cookies, are never allowed: a page sends its token as a header.
func (h *handler) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	origins := r.Header["Origin"]
	if h.CORS == nil || len(origins) == 0 || sameOrigin(r, origins) {
		return false
	}
	cors, err := h.CORS(r.Context())
	switch {
	case fault.Is(err, fault.Sealed), err == nil && cors == nil:
		return false
	case err != nil:
		h.refuse(w, r, fault.Wrap(fault.Unavailable, err, "it cannot be read whose pages may call; try again shortly"))
		return true
	}
	header := w.Header()
	header["Vary"] = []string{"Origin"}
	if len(origins) > 1 || !cors.Allows(origins[0]) {
		h.refuse(w, r, fault.New(fault.Denied, "origin not allowed"))
		return true
	}
	header["Access-Control-Allow-Origin"] = origins
	asked := r.Header.Get("Access-Control-Request-Method")
	switch {
	case r.Method != http.MethodOptions || asked == "":
		return false
	case !slices.Contains(pageMethods, asked):
		h.write(w, r, &gateway.Answer{Status: http.StatusMethodNotAllowed, Allow: pageMethods, Body: errorsBody("unsupported operation")})
		return true
	}
	header["Access-Control-Allow-Methods"] = []string{strings.Join(pageMethods, ", ")}
	header["Access-Control-Allow-Headers"] = []string{strings.Join(cors.AllowedHeaders(), ", ")}
	header["Access-Control-Max-Age"] = []string{"300"}
	h.write(w, r, &gateway.Answer{Status: http.StatusNoContent})
	return true
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, f *fault.Error) {
	leave(w, r)
	answer := refusal(f)
	h.write(w, r, &answer)
}

// sameOrigin reports whether a page is of this server itself: browsers name the
// origin of such a page too. A proxy in front may end TLS, so the scheme is its own.
func sameOrigin(r *http.Request, origins []string) bool {
	_, host, ok := strings.Cut(origins[0], "://")
	return ok && len(origins) == 1 && strings.EqualFold(host, r.Host)
}
