package httpapi

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

// maxCorrelation is the longest correlation id that is passed on, in bytes.
const maxCorrelation = 128

// read fills req from r. What cannot be read is left in req.Problem. The body is
// read last and only when everything before it is right.
func (h *handler) read(w http.ResponseWriter, r *http.Request, req *gateway.Request) {
	req.ID = newID()
	req.Method = method(r)
	req.Traceparent = traceparent(first(r.Header, "Traceparent"))
	req.Correlation = correlation(r.Header)
	req.Peer = peer(r.Context())
	if h.Recorded != nil {
		req.Headers = h.Recorded(r.Header)
	}
	var problem *fault.Error
	if req.Remote, problem = h.remote(r); problem != nil {
		req.Problem = problem
	}
	if len(r.URL.Path) > len(prefix) {
		req.Path = r.URL.Path[len(prefix):]
	}
	if len(req.Path) > h.MaxPath {
		// The record keeps the beginning, which is enough to find the client.
		req.Path = strings.ToValidUTF8(req.Path[:64], "")
		req.Problem = fault.New(fault.Invalid, "the path is longer than %d bytes", h.MaxPath)
		req.Status = http.StatusRequestURITooLong
		return
	}
	if n := headerSize(r); n > h.MaxHeader {
		req.Problem = fault.New(fault.Invalid, "the request's headers are larger than %d bytes", h.MaxHeader)
		req.Status = http.StatusRequestHeaderFieldsTooLarge
		return
	}
	req.ContentType = first(r.Header, "Content-Type")
	req.Namespace = first(r.Header, "X-Vault-Namespace")
	req.WrapTTL = first(r.Header, "X-Vault-Wrap-Ttl")
	req.Factors = r.Header["X-Vault-Mfa"]
	if req.Problem != nil {
		return
	}
	if req.Problem = checkPath(req.Path); req.Problem != nil {
		return
	}
	if req.Problem = readToken(r.Header, req); req.Problem != nil {
		return
	}
	if h.RequireRequestHeader && first(r.Header, "X-Vault-Request") != "true" {
		req.Problem = fault.New(fault.Invalid, `missing "X-Vault-Request" header; this listener wants it with the value true`)
		req.Status = http.StatusPreconditionFailed
		return
	}
	if req.Problem = readQuery(r, req); req.Problem != nil {
		return
	}
	if r.ContentLength == 0 {
		return
	}
	if encoding := first(r.Header, "Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		req.Problem = fault.New(fault.Invalid, "a body with a Content-Encoding is not accepted; send it plain")
		req.Status = http.StatusUnsupportedMediaType
		return
	}
	req.Body, req.Problem = h.readBody(w, r)
}

// method maps an HTTP method to the API's: PUT is POST, HELP is GET, and HEAD
// is GET on the few paths that load balancers probe.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodPut:
		return http.MethodPost
	case "HELP":
		return http.MethodGet
	case http.MethodHead:
		switch r.URL.Path {
		case "/v1/sys/health", "/v1/sys/ready", "/v1/sys/leader", "/v1/sys/seal-status":
			return http.MethodGet
		}
	}
	if len(r.Method) > 16 {
		return r.Method[:16] // what is recorded of nonsense
	}
	return r.Method
}

// readQuery fills in the query, and what of it belongs to every path: list=true
// makes a GET a LIST, and help asks for the path's description.
func readQuery(r *http.Request, req *gateway.Request) *fault.Error {
	req.Help = r.Method == "HELP"
	if r.URL.RawQuery == "" {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fault.New(fault.Invalid, "the query string is malformed: write name=value pairs joined by &, percent-encoded")
	}
	req.Query = query
	if req.Method != http.MethodGet {
		return nil
	}
	if query.Get("help") != "" {
		req.Help = true
	}
	if text := query.Get("list"); text != "" {
		list, err := strconv.ParseBool(text)
		if err != nil {
			return fault.New(fault.Invalid, "the query parameter list must be true or false")
		}
		if list {
			req.Method = "LIST"
		}
	}
	return nil
}

// readToken takes the token from X-Vault-Token, or from Authorization: Bearer.
// Two tokens are refused: which of them counts would be a guess.
func readToken(header http.Header, req *gateway.Request) *fault.Error {
	tokens := header["X-Vault-Token"]
	if len(tokens) > 1 {
		return fault.New(fault.Invalid, "the header X-Vault-Token is given %d times; send one token", len(tokens))
	}
	if len(tokens) == 1 && tokens[0] != "" {
		req.Token = strings.TrimSpace(tokens[0])
		return nil
	}
	for _, value := range header["Authorization"] {
		scheme, token, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		if req.Token != "" {
			return fault.New(fault.Invalid, "the header Authorization holds more than one bearer token; send one")
		}
		req.Token = strings.TrimSpace(token)
	}
	return nil
}

// first returns the first value of a header whose name is in canonical form.
func first(header http.Header, name string) string {
	if values := header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// headerSize is the size of the request's target and headers, as HTTP/1.1 would
// write them.
func headerSize(r *http.Request) int {
	n := len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			n += len(name) + len(value) + len(": \r\n")
		}
	}
	return n
}

// remote returns the client's address: the connection's, or the one that a
// trusted proxy gives.
func (h *handler) remote(r *http.Request) (netip.AddrPort, *fault.Error) {
	peer, err := parseRemote(r.RemoteAddr)
	if h.Forwarded == nil {
		return peer, nil // a unix socket has none
	}
	return h.Forwarded.client(peer, err, r.Header["X-Forwarded-For"])
}

func parseRemote(addr string) (netip.AddrPort, error) {
	peer, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.AddrPort{}, errBadHost
	}
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), nil
}

// correlations are the headers in which clients send an id of their own; the
// first one there counts.
var correlations = [...]string{"X-Correlation-Id", "X-Request-Id"}

// correlation returns the client's own id of the request, "" when it sends none
// or one that should not stand in a log.
func correlation(header http.Header) string {
	id := ""
	for _, name := range correlations {
		if id = first(header, name); id != "" {
			break
		}
	}
	if len(id) > maxCorrelation {
		return ""
	}
	for i := 0; i < len(id); i++ {
		if id[i] < 0x20 || id[i] > 0x7e {
			return ""
		}
	}
	return id
}

// identified answers by which ids the request is found in the audit log: the
// server's own, which answers without a body have nowhere else, and the
// client's, where they were taken over, as it sent them.
func identified(answer, asked http.Header, req *gateway.Request) {
	answer["X-Coffer-Request-Id"] = []string{req.ID}
	if req.Traceparent != "" {
		answer["Traceparent"] = []string{req.Traceparent}
	}
	if req.Correlation == "" {
		return
	}
	for _, name := range correlations {
		if first(asked, name) == req.Correlation {
			answer[name] = []string{req.Correlation}
			return
		}
	}
}

// traceparent returns a W3C traceparent (https://www.w3.org/TR/trace-context/)
// that is well-formed, else "".
func traceparent(text string) string {
	const length = 55
	if len(text) < length || len(text) > 512 || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return ""
	}
	version := text[:2]
	switch {
	case version == "ff", version == "00" && len(text) != length, len(text) > length && text[length] != '-':
		return ""
	}
	trace, span, flags := text[3:35], text[36:52], text[53:55]
	if !isHex(version) || !isHex(trace) || !isHex(span) || !isHex(flags) {
		return ""
	}
	if strings.Trim(trace, "0") == "" || strings.Trim(span, "0") == "" {
		return ""
	}
	for i := length; i < len(text); i++ {
		if text[i] <= 0x20 || text[i] > 0x7e {
			return ""
		}
	}
	return text
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
