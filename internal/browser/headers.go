package browser

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// reservedHeaders are those that HTTP or the server sets itself (RFC 9110 section 7.6.1 has
// those of a connection).
var reservedHeaders = []string{
	"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
	"content-length", "content-type", "content-encoding", "content-range", "date", "location", "set-cookie",
}

// checkHeader returns a header's name as it is kept, or a fault.
func checkHeader(name string) (string, error) {
	if len(name) > 128 || !httpguts.ValidHeaderFieldName(name) {
		return "", fault.New(fault.Invalid, "%.100q is no name of a header", name)
	}
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "x-vault-") {
		return "", fault.New(fault.Invalid, "X-Vault headers cannot be set")
	}
	for _, prefix := range []string{"x-coffer-", "access-control-", "proxy-"} {
		if strings.HasPrefix(name, prefix) {
			return "", fault.New(fault.Invalid, "%s headers cannot be set", prefix)
		}
	}
	if slices.Contains(reservedHeaders, name) {
		return "", fault.New(fault.Invalid, "the header %s cannot be set: HTTP or the server sets it", name)
	}
	return name, nil
}

// Headers lists the console's own headers by their canonical names, in order.
func (s *Store) Headers(ctx context.Context) ([]string, error) {
	var names []string
	err := s.barrier.View(ctx, func(r storage.Reader) error {
		return storage.All(r, headerRows, func(e storage.Entry) error {
			names = append(names, http.CanonicalHeaderKey(strings.TrimPrefix(e.Key, headerRows)))
			return nil
		})
	})
	return names, err
}

// Header returns the values of one of the console's headers, or a fault of kind
// NotFound without a text.
func (s *Store) Header(ctx context.Context, name string) (values []string, err error) {
	name, err = checkHeader(name)
	if err != nil {
		return nil, err
	}
	err = s.barrier.View(ctx, func(r storage.Reader) error {
		row, err := r.Get(headerRows + name)
		if errors.Is(err, storage.ErrNotFound) {
			return fault.New(fault.NotFound, "")
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(row, &values)
	})
	return values, err
}

// SetHeader replaces the values of one of the console's headers.
func (s *Store) SetHeader(ctx context.Context, name string, values []string) error {
	name, err := checkHeader(name)
	if err != nil {
		return err
	}
	if len(values) == 0 || len(values) > MaxValues {
		return fault.New(fault.Invalid, "header and values must be specified: 1 to %d values", MaxValues)
	}
	for _, v := range values {
		if v == "" || len(v) > MaxValueBytes || !httpguts.ValidHeaderFieldValue(v) {
			return fault.New(fault.Invalid, "a value of %s is empty, longer than %d bytes, or has a character that no header may hold, such as a line's end", name, MaxValueBytes)
		}
	}
	row, err := json.Marshal(values)
	if err != nil {
		return err
	}
	_, err = s.barrier.Update(ctx, func(tx storage.Txn) error {
		n := 0
		if err := storage.All(tx, headerRows, func(e storage.Entry) error {
			if e.Key != headerRows+name {
				n++
			}
			return nil
		}); err != nil {
			return err
		}
		if n >= MaxHeaders {
			return fault.New(fault.Invalid, "there are %d headers, which is the limit", MaxHeaders)
		}
		return tx.Put(headerRows+name, row)
	})
	return err
}

// DeleteHeader removes one of the console's headers; one that is not there is no error.
func (s *Store) DeleteHeader(ctx context.Context, name string) error {
	name, err := checkHeader(name)
	if err != nil {
		return err
	}
	return s.remove(ctx, headerRows+name)
}
