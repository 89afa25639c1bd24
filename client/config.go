package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// DefaultAddress is where a client goes that is not told where.
const DefaultAddress = "https://127.0.0.1:8200"

// Defaults of Config.
const (
	DefaultTimeout     = 60 * time.Second
	DefaultRetries     = 2
	DefaultRetryMin    = 250 * time.Millisecond
	DefaultRetryMax    = 10 * time.Second
	DefaultRetryAfter  = 60 * time.Second
	DefaultMaxResponse = 64 << 20
)

// Config says where the server is and how to speak with it. The zero value of
// each field is its default.
type Config struct {
	// Address is the server's: https://host:port, with a path in front of /v1
	// where a proxy has one, or unix:///path/of/socket. http:// is accepted,
	// and sends tokens in the clear.
	Address   string
	Namespace string
	Token     Secret

	// WrapTTL wraps every answer that can be wrapped; see Request.WrapTTL.
	WrapTTL time.Duration

	CACert     string // file with certificates in PEM that are trusted instead of the system's
	CAPath     string // directory of such files
	CACertPEM  []byte // the same, not in a file
	ClientCert string // file with the client's certificate and its chain in PEM
	ClientKey  string // file with its key
	ServerName string // name to ask for and to verify, in place of the address's host
	SkipVerify bool   // accept any certificate: anyone on the way can read everything

	// Timeout bounds one call with all its attempts. 0 is DefaultTimeout,
	// negative is no bound besides the context.
	Timeout time.Duration

	// MaxRetries is how often a request may be sent again. 0 is
	// DefaultRetries, negative is never.
	MaxRetries int
	// Before the nth retry the client waits a random time up to RetryMin
	// doubled n times, at most RetryMax.
	RetryMin, RetryMax time.Duration
	// RetryAfter is the longest wait that a server's Retry-After may ask for;
	// a call that is told to wait longer ends with the error.
	RetryAfter time.Duration

	// MaxResponse is the size in bytes beyond which an answer is refused.
	MaxResponse int64

	// Proxy returns the proxy for a request, nil for none.
	Proxy func(*http.Request) (*url.URL, error)

	// Transport carries requests in place of the one that is made of the
	// TLS and proxy settings, which then count for nothing. It must not follow
	// redirects. An error of it leaves open what became of a write.
	Transport http.RoundTripper

	// UserAgent is sent with every request.
	UserAgent string
}

// FromEnvironment reads a Config from variables that are named COFFER_ and, for
// each of them that is unset, from Vault's variable of the same meaning: ADDR,
// TOKEN, NAMESPACE, CACERT, CACERT_BYTES, CAPATH, CLIENT_CERT, CLIENT_KEY,
// TLS_SERVER_NAME, SKIP_VERIFY, CLIENT_TIMEOUT (a duration or seconds),
// MAX_RETRIES, WRAP_TTL, PROXY_ADDR and HTTP_PROXY. The proxy is otherwise that
// of HTTPS_PROXY and NO_PROXY. getenv is os.Getenv or a stand-in.
//
// Where VAULT_ADDR names another server than COFFER_ADDR, Vault's variables are
// about that one, and none is used: its token is not for this server to see.
func FromEnvironment(getenv func(string) string) (Config, error) {
	e := environment{getenv: getenv, prefixes: []string{"COFFER_", "VAULT_"}}
	here, there := getenv("COFFER_ADDR"), getenv("VAULT_ADDR")
	if here != "" && there != "" && strings.TrimSuffix(here, "/") != strings.TrimSuffix(there, "/") {
		e.prefixes = e.prefixes[:1]
	}
	c := Config{
		Address: e.text("ADDR"), Token: Secret(strings.TrimSpace(e.text("TOKEN"))), Namespace: e.text("NAMESPACE"),
		CACert: e.text("CACERT"), CAPath: e.text("CAPATH"), CACertPEM: []byte(e.text("CACERT_BYTES")),
		ClientCert: e.text("CLIENT_CERT"), ClientKey: e.text("CLIENT_KEY"), ServerName: e.text("TLS_SERVER_NAME"),
		SkipVerify: e.boolean("SKIP_VERIFY"), Timeout: e.duration("CLIENT_TIMEOUT"), WrapTTL: e.duration("WRAP_TTL"),
		MaxRetries: e.retries("MAX_RETRIES"),
	}
	proxy := e.text("PROXY_ADDR")
	if proxy == "" {
		proxy = e.text("HTTP_PROXY")
	}
	c.Proxy = e.proxy(proxy)
	return c, errors.Join(e.problems...)
}

// environment reads variables and gathers what is wrong with them.
type environment struct {
	getenv   func(string) string
	prefixes []string // of names, the first that is set counts
	problems []error
}

// get returns a variable with the name under which it was found.
func (e *environment) get(name string) (full, value string) {
	for _, prefix := range e.prefixes {
		if value := e.getenv(prefix + name); value != "" {
			return prefix + name, value
		}
	}
	return "", ""
}

func (e *environment) text(name string) string {
	_, value := e.get(name)
	return value
}

func (e *environment) boolean(name string) bool {
	full, text := e.get(name)
	if text == "" {
		return false
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		e.problems = append(e.problems, fmt.Errorf("%s: %q is neither true nor false", full, text))
	}
	return value
}

func (e *environment) duration(name string) time.Duration {
	full, text := e.get(name)
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		text = strconv.FormatInt(n, 10) + "s"
	}
	value, err := time.ParseDuration(text)
	if err != nil || value < 0 {
		e.problems = append(e.problems, fmt.Errorf("%s: %q is not a duration; write for example 30s", full, text))
	}
	return value
}

// retries reads a number of which 0 means none.
func (e *environment) retries(name string) int {
	full, text := e.get(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		e.problems = append(e.problems, fmt.Errorf("%s: %q is not a number of retries", full, text))
	}
	if n == 0 {
		return -1
	}
	return int(n)
}

func (e *environment) proxy(always string) func(*http.Request) (*url.URL, error) {
	if always != "" {
		return func(*http.Request) (*url.URL, error) { return url.Parse(always) }
	}
	either := func(name string) string {
		if value := e.getenv(name); value != "" {
			return value
		}
		return e.getenv(strings.ToLower(name))
	}
	find := (&httpproxy.Config{
		HTTPProxy: either("HTTP_PROXY"), HTTPSProxy: either("HTTPS_PROXY"), NoProxy: either("NO_PROXY"),
		CGI: e.getenv("REQUEST_METHOD") != "",
	}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return find(r.URL) }
}

// filled returns the configuration with its defaults, or says what is wrong.
func (c Config) filled() (Config, error) {
	if c.RetryMin < 0 || c.RetryMax < 0 || c.RetryAfter < 0 || c.MaxResponse < 0 {
		return c, errors.New("the waits between retries and the greatest size of an answer must not be negative")
	}
	set(&c.Address, DefaultAddress)
	set(&c.Timeout, DefaultTimeout)
	set(&c.MaxRetries, DefaultRetries)
	set(&c.RetryMin, DefaultRetryMin)
	set(&c.RetryMax, DefaultRetryMax)
	set(&c.RetryAfter, DefaultRetryAfter)
	set(&c.MaxResponse, DefaultMaxResponse)
	set(&c.UserAgent, "coffer-client")
	return c, nil
}

func set[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}
