package auditstore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// HeaderPrefix is in front of the rows of request headers that are recorded, below
// the store's part; their names follow it, in lower case.
const HeaderPrefix = "header/"

// Limits of recorded headers.
const (
	MaxHeaders     = 32
	MaxHeaderName  = 128 // bytes
	MaxHeaderBytes = 512 // of a value that is recorded as it is; the rest is cut off
	MaxHeaderList  = 8   // values of one header in one request
	// MaxRecorded bounds what one request adds as it is: anybody may send headers, and
	// the log must not grow by what strangers like.
	MaxRecorded = 4 << 10
)

// Header says how a request header is recorded.
type Header struct {
	HMAC bool `json:"hmac"` // its values are hashed
}

// tellTale are parts of the names of headers that carry what proves who somebody is.
// They can never be recorded, not even hashed: a hash of a password can be guessed.
var tellTale = []string{
	"token", "auth", "cookie", "secret", "passw", "passphrase", "credential", "key", "jwt", "assertion", "signature",
	"mfa", "otp", "session", "csrf", "xsrf", "dpop",
}

// headerName returns a header's name as it is kept, or a fault.
func headerName(name string) (string, error) {
	if name == "" {
		return "", fault.New(fault.Invalid, "missing header name")
	}
	if len(name) > MaxHeaderName || !httpguts.ValidHeaderFieldName(name) {
		return "", fault.New(fault.Invalid, "%.100q is no name of a header", name)
	}
	return strings.ToLower(name), nil
}

// Headers returns which request headers are recorded, by their names in lower case.
func (s *Store) Headers(ctx context.Context) (map[string]Header, error) {
	all := map[string]Header{}
	err := s.storage.View(ctx, func(r storage.Reader) error { return readHeaders(r, all) })
	return all, err
}

func readHeaders(r storage.Reader, into map[string]Header) error {
	return storage.All(r, HeaderPrefix, func(e storage.Entry) error {
		var h Header
		if err := json.Unmarshal(e.Value, &h); err != nil {
			return fmt.Errorf("row %s: %w", e.Key, err)
		}
		into[strings.TrimPrefix(e.Key, HeaderPrefix)] = h
		return nil
	})
}

// RecordHeader has a request header recorded from now on.
func (s *Store) RecordHeader(ctx context.Context, name string, h Header) error {
	name, err := headerName(name)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(tellTale, func(part string) bool { return strings.Contains(name, part) }); i >= 0 {
		return fault.New(fault.Invalid, "the header %s is never recorded: one with %q in its name may carry what proves who somebody is", name, tellTale[i])
	}
	row, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		all := map[string]Header{}
		if err := readHeaders(t, all); err != nil {
			return err
		}
		if all[name] = h; len(all) > MaxHeaders {
			return fault.New(fault.Invalid, "%d headers are recorded, which is the limit", MaxHeaders)
		}
		return t.Put(HeaderPrefix+name, row)
	})
	if err != nil {
		return err
	}
	return s.ReconcileHeaders(ctx)
}

// ForgetHeader has a request header recorded no more; one that is not is no error.
func (s *Store) ForgetHeader(ctx context.Context, name string) error {
	name, err := headerName(name)
	if err != nil {
		return err
	}
	if _, err := s.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(HeaderPrefix + name) }); err != nil {
		return err
	}
	return s.ReconcileHeaders(ctx)
}

// chosen is a header to record.
type chosen struct {
	name, canonical string
	hashed          bool
}

// ReconcileHeaders reads anew which headers are recorded: other nodes choose too.
func (s *Store) ReconcileHeaders(ctx context.Context) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	all, err := s.Headers(ctx)
	if err != nil {
		return err
	}
	var list []chosen
	for name, h := range all {
		list = append(list, chosen{name, http.CanonicalHeaderKey(name), h.HMAC})
	}
	slices.SortFunc(list, func(a, b chosen) int { return strings.Compare(a.name, b.name) })
	s.chosen.Store(&list)
	return nil
}

// Recorded returns of a request's headers those that are recorded, as they are: by
// names in lower case, values hashed where that was asked; nil for none.
func (s *Store) Recorded(sent map[string][]string) map[string][]string {
	list := s.chosen.Load()
	if list == nil {
		return nil
	}
	var out map[string][]string
	left := MaxRecorded
	for _, c := range *list {
		values := sent[c.canonical]
		if len(values) == 0 {
			continue
		}
		kept := make([]string, 0, min(len(values), MaxHeaderList))
		for _, v := range values[:min(len(values), MaxHeaderList)] {
			if c.hashed {
				kept = append(kept, audit.Hash(s.salt, v))
				continue
			}
			v = v[:min(len(v), MaxHeaderBytes, left)]
			left -= len(v)
			kept = append(kept, v)
		}
		if out == nil {
			out = map[string][]string{}
		}
		out[c.name] = kept
	}
	return out
}
