package gateway

import (
	"net/url"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/wire"
)

// MaxWrapTTL is the longest life of a wrapped answer.
const MaxWrapTTL = 32 * 24 * time.Hour

// parse reads the wrapping asked for and the parameters: the body's, or the
// query's where a method has no body.
func (t *turn) parse() (err error) {
	t.params = &wire.Params{}
	if t.WrapTTL != "" {
		ttl, err := wire.ParseDuration(t.WrapTTL)
		switch {
		case err != nil:
			return fault.New(fault.Invalid, "X-Vault-Wrap-TTL: %v", err)
		case ttl < 0 || ttl > MaxWrapTTL:
			return fault.New(fault.Invalid, "X-Vault-Wrap-TTL: %v is not between 0 and %v", ttl, MaxWrapTTL)
		}
		t.wrapTTL = ttl
	}
	switch {
	case t.ContentType == "application/ocsp-request":
		// RFC 6960 has a protocol of its own, whose routes take the whole body; all
		// others find no parameters.
		t.params = &wire.Params{Body: t.Body}
	case len(t.Body) == 0 && (t.Method == "GET" || t.Method == "LIST" || t.Method == "DELETE"):
		t.params = wire.ParseQuery(t.Query)
	case strings.HasPrefix(t.ContentType, "application/x-www-form-urlencoded") && !strings.HasPrefix(strings.TrimSpace(string(t.Body)), "{"):
		form, err := url.ParseQuery(string(t.Body))
		if err != nil {
			return fault.New(fault.Invalid, "the request body is no valid form")
		}
		t.params = wire.ParseQuery(form)
	default:
		params, err := wire.ParseBody(t.Body)
		if err != nil {
			return fault.New(fault.Invalid, "%v", err)
		}
		t.params = params
	}
	return nil
}
