// Package browser keeps what is configured for browsers: the pages of which origins
// may call the API, and the headers that go with the console. It enforces neither:
// package httpapi asks it.
package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

const (
	corsRow = "core/config/cors"
	// headerRows is followed by a header's name in lower case.
	headerRows = "core/config/ui-headers/"
)

// Limits of what is configured.
const (
	MaxOrigins     = 64
	MaxOriginBytes = 300
	MaxHeaders     = 64 // of each kind
	MaxValues      = 16 // of one header
	MaxValueBytes  = 4 << 10
)

// Any is the origin that stands for all.
const Any = "*"

// standard are the request headers that pages may always send.
var standard = []string{
	"Content-Type", "X-Requested-With", "X-Vault-AWS-IAM-Server-ID", "X-Vault-MFA",
	"X-Vault-No-Request-Forwarding", "X-Vault-Wrap-Format", "X-Vault-Wrap-TTL",
	"X-Vault-Policy-Override", "Authorization", "X-Vault-Token", "X-Vault-Namespace", "X-Vault-Request",
}

// CORS says whose pages may call.
type CORS struct {
	Origins []string `json:"origins"` // as browsers send them, or only Any
	Headers []string `json:"headers"` // request headers beside the standard ones
}

// Allows reports whether the pages of an origin may call.
func (c *CORS) Allows(origin string) bool {
	return origin != "" && (c.Origins[0] == Any || slices.Contains(c.Origins, origin))
}

// AllowedHeaders are the request headers that pages may send.
func (c *CORS) AllowedHeaders() []string { return slices.Concat(standard, c.Headers) }

// check refuses what no browser would send, so that nobody waits for it to match.
func (c *CORS) check() error {
	switch {
	case len(c.Origins) == 0:
		return fault.New(fault.Invalid, "at least one origin or the wildcard must be provided: allowed_origins is empty")
	case slices.Contains(c.Origins, Any) && len(c.Origins) > 1:
		return fault.New(fault.Invalid, "to allow all origins the '*' must be the only value for allowed_origins")
	case len(c.Origins) > MaxOrigins || len(c.Headers) > MaxHeaders:
		return fault.New(fault.Invalid, "at most %d origins and %d headers can be allowed", MaxOrigins, MaxHeaders)
	}
	for _, origin := range c.Origins {
		if why := wrongOrigin(origin); why != "" {
			return fault.New(fault.Invalid, "allowed_origins: %.100q is no origin: %s; write it as https://app.example.com or https://app.example.com:8443", origin, why)
		}
	}
	for _, name := range c.Headers {
		if len(name) > 128 || !httpguts.ValidHeaderFieldName(name) {
			return fault.New(fault.Invalid, "allowed_headers: %.100q is no name of a header", name)
		}
	}
	return nil
}

// wrongOrigin says what keeps a text from being an origin as browsers write it (RFC
// 6454 section 6.2), "" when nothing does.
func wrongOrigin(text string) string {
	if text == Any {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "":
		return "it has a scheme and a host"
	case len(text) > MaxOriginBytes:
		return fmt.Sprintf("it is longer than %d bytes", MaxOriginBytes)
	case u.Scheme+"://"+u.Host != text:
		return "it has nothing but a scheme, a host and a port, without a slash at the end"
	case strings.Contains(text, "*"):
		return "origins are compared whole, and a wildcard stands only alone"
	case strings.ToLower(text) != text || !ascii(text):
		return "browsers send it in lower case and ASCII"
	case u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80":
		return "browsers leave out the port that the scheme has anyway"
	}
	return ""
}

func ascii(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Store keeps the configuration in the open barrier.
type Store struct {
	barrier *barrier.Barrier
	cors    *barrier.Cache[*CORS]
}

// New returns the store of what the open barrier has.
func New(b *barrier.Barrier) *Store {
	return &Store{b, barrier.NewCache(b, corsRow, 1, func(key string, value []byte) (*CORS, error) {
		c := &CORS{}
		if err := json.Unmarshal(value, c); err != nil || len(c.Origins) == 0 {
			return nil, fmt.Errorf("row %s is not what was written there: %w", key, err)
		}
		return c, nil
	})}
}

// CORS returns whose pages may call, nil for nobody's. It answers from memory, as it
// was on any node at most barrier.CacheBound ago.
func (s *Store) CORS(ctx context.Context) (*CORS, error) {
	c, err := s.cors.Get(ctx, corsRow)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return c, err
}

// Allow lets pages call.
func (s *Store) Allow(ctx context.Context, c CORS) error {
	if err := c.check(); err != nil {
		return err
	}
	return s.put(ctx, corsRow, c)
}

// Forbid lets no page call.
func (s *Store) Forbid(ctx context.Context) error { return s.remove(ctx, corsRow) }

func (s *Store) put(ctx context.Context, key string, value any) error {
	row, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = s.barrier.Update(ctx, func(tx storage.Txn) error { return tx.Put(key, row) })
	return err
}

func (s *Store) remove(ctx context.Context, key string) error {
	_, err := s.barrier.Update(ctx, func(tx storage.Txn) error { return tx.Delete(key) })
	return err
}
