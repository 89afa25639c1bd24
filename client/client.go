package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client speaks with one server in one namespace with one token.
type Client struct {
	config Config // filled
	base   *url.URL
	unix   bool
	// carrier takes one request to one server; redirects are send's matter.
	carrier http.RoundTripper
	own     *http.Transport // the same, nil when it is the user's
}

// New returns a client. It reads certificates and connects to nothing yet.
func New(config Config) (*Client, error) {
	c, err := config.filled()
	if err != nil {
		return nil, err
	}
	base, socket, err := parseAddress(c.Address)
	if err != nil {
		return nil, err
	}
	if err := checkToken(c.Token); err != nil {
		return nil, err
	}
	out := &Client{config: c, base: base, unix: socket != ""}
	out.carrier = c.Transport
	switch {
	case out.carrier == nil:
		if out.own, err = newTransport(c, socket); err != nil {
			return nil, err
		}
		out.carrier = out.own
	case socket != "":
		return nil, errors.New("an address unix:// needs the client's own transport")
	}
	return out, nil
}

// checkToken refuses what no header can carry, without repeating it.
func checkToken(token Secret) error {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return errors.New("the token holds characters that no token has; was it copied with a line break?")
		}
	}
	return nil
}

// WithToken returns a client that calls with another token over the same
// connections. "" calls without one.
func (c *Client) WithToken(token Secret) *Client {
	other := *c
	other.config.Token = token
	return &other
}

// WithNamespace returns a client for another namespace over the same
// connections. "" is the root.
func (c *Client) WithNamespace(namespace string) *Client {
	other := *c
	other.config.Namespace = namespace
	return &other
}

// Address returns where the server is.
func (c *Client) Address() string { return c.config.Address }

// Namespace returns the namespace of requests, "" for the root.
func (c *Client) Namespace() string { return c.config.Namespace }

// CallingToken returns the token of requests.
func (c *Client) CallingToken() Secret { return c.config.Token }

// Close closes idle connections. Clients made of this one share them; all stay
// usable.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Request is one request.
type Request struct {
	// Method is GET, LIST, POST, PUT, PATCH, DELETE or HEAD; "" is GET.
	Method string
	// Path is what follows /v1/, not escaped, for example secret/data/app/db.
	Path  string
	Query url.Values
	// Body is written as JSON, with the values of every Secret and Raw in it;
	// []byte, Raw and json.RawMessage are sent as they are, nil sends none.
	Body any
	// WrapTTL asks that the answer is put behind a token of one use that lives
	// so long. 0 is the Config's, negative asks for the answer itself.
	WrapTTL time.Duration
	// Token calls in place of the client's.
	Token Secret
	// Anonymous sends no token, as logins and unseals need none.
	Anonymous bool
	// Reads says of a POST that it changes nothing, so that it may be sent
	// again like a GET.
	Reads bool
	// Once never sends again, whatever happens.
	Once bool
	// Quiet says to Stream that the body may pause for as long as it likes, as a
	// log does that is followed.
	Quiet bool
	// Header holds further headers.
	Header http.Header
}

// Do sends a request and returns its answer. An answer of status 400 and above
// is an *Error, and is returned beside it: some, as that of a deleted version,
// carry data.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	call, err := c.prepare(r)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
	}
	if c.config.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.Timeout)
		defer cancel()
	}
	for retry := 0; ; retry++ {
		t := c.send(ctx, call)
		wait, again := c.pause(t, call, retry)
		if !again || !sleep(ctx, wait) {
			return t.answer, call.failure(ctx, t)
		}
	}
}

// call is a request ready to be sent as often as need be.
type call struct {
	method, path string // as the user names them
	reads, once  bool

	verb   string // on the wire
	url    *url.URL
	header http.Header
	body   []byte
	into   io.Writer // takes the body of a streamed answer
}

func (c *Client) prepare(r Request) (*call, error) {
	method := strings.ToUpper(r.Method)
	if method == "" {
		method = http.MethodGet
	}
	path := strings.TrimPrefix(r.Path, "/")
	if err := checkPath(path); err != nil {
		return nil, err
	}
	body, err := marshal(r.Body)
	if err != nil {
		return nil, err
	}
	out := &call{
		method: method, path: path, verb: method, body: body, once: r.Once,
		reads: r.Reads || method == http.MethodGet || method == http.MethodHead || method == "LIST",
	}
	query := r.Query
	if method == "LIST" { // any proxy lets this spelling of it through
		out.verb = http.MethodGet
		query = url.Values{"list": {"true"}}
		for name, values := range r.Query {
			query[name] = values
		}
	}
	at := *c.base
	at.Path += "/v1/" + path
	at.RawQuery = query.Encode()
	out.url = &at
	out.header, err = c.headers(r, method, len(body) > 0)
	return out, err
}

// checkPath refuses what a proxy or server could take for another path.
func checkPath(path string) error {
	if path == "" {
		return errors.New("the request names no path")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return errors.New("the path must not have . or .. between slashes")
		}
	}
	return nil
}

func (c *Client) headers(r Request, method string, body bool) (http.Header, error) {
	h := r.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("X-Vault-Request", "true")
	h.Set("User-Agent", c.config.UserAgent)
	h.Set("Accept", "application/json, */*;q=0.5")
	if c.config.Namespace != "" {
		h.Set("X-Vault-Namespace", c.config.Namespace)
	}
	token := r.Token
	if token == "" {
		token = c.config.Token
	}
	if err := checkToken(token); err != nil {
		return nil, err
	}
	if token != "" && !r.Anonymous {
		h.Set("X-Vault-Token", token.Reveal())
	}
	ttl := r.WrapTTL
	if ttl == 0 {
		ttl = c.config.WrapTTL
	}
	if ttl > 0 {
		h.Set("X-Vault-Wrap-TTL", strconv.FormatInt(wholeSeconds(ttl), 10)+"s")
	}
	if body && h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
		if method == http.MethodPatch {
			h.Set("Content-Type", "application/merge-patch+json")
		}
	}
	return h, nil
}
