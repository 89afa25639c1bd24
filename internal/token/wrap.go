package token

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lifetime"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// WrapRequest is a response to wrap.
type WrapRequest struct {
	Body            []byte // the response as it would have been answered
	TTL             time.Duration
	CreationPath    string // of the request whose response it is
	WrappedAccessor string // of the token that the response holds, if it holds one
}

// WrapInfo is a wrapped response without the response, in Vault's shape.
type WrapInfo struct {
	Token           wire.Secret  `json:"token"`
	Accessor        string       `json:"accessor"`
	TTL             wire.Seconds `json:"ttl"`
	CreationTime    wire.Time    `json:"creation_time"`
	CreationPath    string       `json:"creation_path"`
	WrappedAccessor string       `json:"wrapped_accessor,omitempty"`
}

// Unwrapped is a response that was wrapped.
type Unwrapped struct {
	Body         []byte
	CreationPath string
	Accessor     string // of the wrapping token, which is gone
}

// Wrap keeps a response and returns the token of one use that Unwrap takes for
// it. The response and its token are one commit.
func (s *Store) Wrap(ctx context.Context, r WrapRequest) (*WrapInfo, error) {
	if r.TTL <= 0 {
		return nil, invalid("the lifetime of a wrapped response must be positive")
	}
	var info *WrapInfo
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		var err error
		info, err = s.wrap(t, r)
		return err
	})
	if errors.Is(err, storage.ErrTooLarge) {
		return nil, fault.Wrap(fault.TooLarge, err, "the response is too large to be wrapped: it has %d bytes", len(r.Body))
	}
	return info, err
}

func (s *Store) wrap(t storage.Txn, r WrapRequest) (*WrapInfo, error) {
	now := time.Now()
	secret := newSecret()
	tok := &Token{
		ID: s.hash.id(secret), Accessor: s.newAccessor(), Namespace: s.namespace, Path: r.CreationPath, Policies: []string{WrappingPolicy},
		Type: Service, Orphan: true, CreatedAt: now, ExpiresAt: now.Add(r.TTL), TTL: r.TTL, NumUses: 1,
		Terms: lifetime.Terms{TTL: r.TTL, ExplicitMax: r.TTL}, DisplayName: "response-wrapping",
		Wrapping: &Wrapping{CreationPath: r.CreationPath, TTL: r.TTL, WrappedAccessor: r.WrappedAccessor},
	}
	if err := insert(t, tok); err != nil {
		return nil, err
	}
	if err := t.Put(wrappedKey(tok.ID), r.Body); err != nil {
		return nil, err
	}
	info := tok.wrapInfo()
	info.Token = wire.Secret(secret)
	return info, nil
}

func (t *Token) wrapInfo() *WrapInfo {
	w := t.Wrapping
	return &WrapInfo{
		Accessor: t.Accessor, TTL: wire.Seconds(w.TTL), CreationTime: wire.Time{Time: t.CreatedAt},
		CreationPath: w.CreationPath, WrappedAccessor: w.WrappedAccessor,
	}
}

// Unwrap returns a wrapped response and ends its token, in one commit: of any
// number of callers at once exactly one gets it. A crash before the commit
// leaves it wrapped; one after it, before the answer left, loses it, which is
// what its one use means.
func (s *Store) Unwrap(ctx context.Context, secret string) (Unwrapped, error) {
	var out Unwrapped
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		tok, body, err := s.wrapped(t, secret)
		if err != nil {
			return err
		}
		out = Unwrapped{Body: body, CreationPath: tok.Wrapping.CreationPath, Accessor: tok.Accessor}
		return remove(t, tok)
	})
	if err != nil {
		return Unwrapped{}, err
	}
	s.stir(nil)
	return out, nil
}

// WrapLookup says what is known of a wrapped response without taking it. The
// token itself is left out.
func (s *Store) WrapLookup(ctx context.Context, secret string) (WrapInfo, error) {
	var info WrapInfo
	err := s.storage.View(ctx, func(r storage.Reader) error {
		tok, _, err := s.wrapped(r, secret)
		if err == nil {
			info = *tok.wrapInfo()
		}
		return err
	})
	return info, err
}

// Rewrap moves a wrapped response to a new token of the same lifetime, counted
// from now, and ends the old one. Nobody sees the response.
func (s *Store) Rewrap(ctx context.Context, secret string) (*WrapInfo, error) {
	var info *WrapInfo
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		tok, body, err := s.wrapped(t, secret)
		if err != nil {
			return err
		}
		if err := remove(t, tok); err != nil {
			return err
		}
		w := tok.Wrapping
		info, err = s.wrap(t, WrapRequest{Body: body, TTL: w.TTL, CreationPath: w.CreationPath, WrappedAccessor: w.WrappedAccessor})
		return err
	})
	if err != nil {
		return nil, err
	}
	s.stir(nil)
	return info, nil
}

// wrapped returns a wrapping token that holds, and its response.
func (s *Store) wrapped(r storage.Reader, secret string) (*Token, []byte, error) {
	if secret == "" || len(secret) > maxSecret || strings.HasPrefix(secret, batchPrefix) {
		return nil, nil, errWrapping()
	}
	tok, err := read(r, s.hash.id(secret))
	if errors.Is(err, storage.ErrNotFound) || err == nil && (tok.Wrapping == nil || !tok.valid(time.Now())) {
		return nil, nil, errWrapping()
	}
	if err != nil {
		return nil, nil, err
	}
	body, err := r.Get(wrappedKey(tok.ID))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, errWrapping()
	}
	return tok, body, err
}

func errWrapping() error { return invalid("wrapping token is not valid or does not exist") }
