package pki

import (
	"context"
	"encoding/pem"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

var listRoutes = []route.Route[*Engine]{
	route.New("GET", "crl", "The default issuer's list of revoked certificates, in DER.", (*Engine).fetchCRL, route.Public(),
		route.Shows("crl", "", "")),
	route.New("GET", "crl/pem", "The default issuer's list of revoked certificates, in PEM.", (*Engine).fetchCRLPEM, route.Public(),
		route.Shows("crl/pem", "", "")),
	route.New("GET", "crl/delta", "What was revoked since the default issuer's list, in DER.", (*Engine).fetchDelta, route.Public(),
		route.Shows("crl/delta", "", "")),
	route.New("GET", "crl/delta/pem", "What was revoked since the default issuer's list, in PEM.", (*Engine).fetchDeltaPEM, route.Public(),
		route.Shows("crl/delta/pem", "", "")),
	route.New("GET", "cert/crl", "The default issuer's list of revoked certificates.", (*Engine).certCRL, route.Public(),
		route.Shows("cert/crl", "", "")),
	route.New("GET", "cert/delta-crl", "What was revoked since the default issuer's list.", (*Engine).certDelta, route.Public(),
		route.Shows("cert/delta-crl", "", "")),
	route.New("GET", "issuer/{issuer_ref}/crl", "An issuer's list of revoked certificates.", (*Engine).issuerCRL, route.Public(),
		route.Shows("issuer/default/crl", "", "")),
	route.New("GET", "issuer/{issuer_ref}/crl/der", "An issuer's list of revoked certificates, in DER.", (*Engine).issuerCRLDER, route.Public(),
		route.Shows("issuer/default/crl/der", "", "")),
	route.New("GET", "issuer/{issuer_ref}/crl/pem", "An issuer's list of revoked certificates, in PEM.", (*Engine).issuerCRLPEM, route.Public(),
		route.Shows("issuer/default/crl/pem", "", "")),
	route.New("GET", "issuer/{issuer_ref}/crl/delta", "What was revoked since an issuer's list.", (*Engine).issuerDelta, route.Public(),
		route.Shows("issuer/default/crl/delta", "", "")),
	route.New("GET", "issuer/{issuer_ref}/crl/delta/der", "What was revoked since an issuer's list, in DER.", (*Engine).issuerDeltaDER, route.Public(),
		route.Shows("issuer/default/crl/delta/der", "", "")),
	route.New("GET", "issuer/{issuer_ref}/crl/delta/pem", "What was revoked since an issuer's list, in PEM.", (*Engine).issuerDeltaPEM, route.Public(),
		route.Shows("issuer/default/crl/delta/pem", "", "")),
	route.New("GET", "crl/rotate", "Make the lists of revoked certificates anew.", (*Engine).rotateLists, route.Changes(),
		route.Shows("crl/rotate", "", "")),
	route.New("GET", "crl/rotate-delta", "Make the lists of what was revoked since the last ones anew.", (*Engine).rotateDeltas, route.Changes(),
		route.Shows("crl/rotate-delta", "", "")),
}

// makers has one list of an authority made at a time on this node. Many who revoke
// at once wait for one list that has what all of them revoked.
type makers struct{ all sync.Map }

type maker struct {
	turn    chan struct{}
	started atomic.Int64
	last    error
}

func (m *makers) of(authority string) *maker {
	one, _ := m.all.LoadOrStore(authority, &maker{turn: make(chan struct{}, 1)})
	return one.(*maker)
}

// build makes an authority's list of everything that was revoked before it was called.
func (e *Engine) build(ctx context.Context, authority string, delta bool) error {
	if delta {
		return e.make(ctx, authority, true)
	}
	m := e.makers.of(authority)
	before := m.started.Load()
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.turn }()
	if m.started.Load() > before && m.last == nil {
		return nil // it began after this call, and is done
	}
	m.started.Add(1)
	m.last = e.make(ctx, authority, false)
	return m.last
}

// buildAll makes the lists of all authorities, or only those that are due.
func (e *Engine) buildAll(ctx context.Context, all bool) (failed error) {
	b, err := e.book(ctx)
	if err != nil {
		return err
	}
	for _, authority := range b.authorities() {
		if b.signerOf(authority, usageCRL) == nil {
			continue
		}
		// One that cannot be made holds up no other.
		failed = errors.Join(failed, e.buildDue(ctx, authority, all))
	}
	return failed
}

// first makes the first list of issuers that came.
func (e *Engine) first(ctx context.Context) error {
	b, err := e.book(ctx)
	if err != nil {
		return err
	}
	for _, authority := range b.authorities() {
		if b.signerOf(authority, usageCRL) == nil {
			continue
		}
		h, err := storage.LoadFrom[head](ctx, e.env.Storage, headRows+authority)
		if err != nil {
			return err
		}
		if h == nil {
			if err := e.build(ctx, authority, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) buildDue(ctx context.Context, authority string, now bool) error {
	delta := false
	if !now {
		var at time.Time
		if err := e.env.Storage.View(ctx, func(r storage.Reader) error {
			c, err := loadCRLConfig(r)
			if err != nil {
				return err
			}
			h, stale, err := listState(r, authority)
			at, delta = h.due(c, stale, time.Now())
			return err
		}); err != nil {
			return err
		}
		if at.After(time.Now()) {
			return nil
		}
	}
	return e.build(ctx, authority, delta)
}

// due does what the clock asks for.
func (e *Engine) due(ctx context.Context, t engine.Task) error {
	switch t.Name {
	case listsTask:
	case tidyTask:
		return e.goOn(ctx, t)
	case autoTidyTask:
		return e.autoBegin(ctx, t)
	default:
		return t.Update(ctx, func(t engine.TaskTxn) error { return t.Done() })
	}
	if err := e.buildAll(ctx, false); err != nil {
		return err
	}
	// What was made scheduled the next anew, and then this task is another's.
	err := t.Update(ctx, func(t engine.TaskTxn) error {
		next, err := nextLists(t, time.Now())
		if err != nil {
			return err
		}
		if next.IsZero() {
			return t.Done()
		}
		return t.Again(next)
	})
	if err != nil {
		e.env.Log.Debug("the next list of revoked certificates is scheduled already", "mount", e.env.Mount.Path, "error", err)
	}
	return nil
}

// list returns an authority's list, nil when there is none.
func (e *Engine) list(ctx context.Context, ref string, delta bool) ([]byte, error) {
	i, err := e.published(ctx, ref)
	if err != nil {
		return nil, err
	}
	der, err := e.read(ctx, i.authority, delta)
	if err == nil && der == nil && !delta {
		// The issuer came a moment ago, and its first list is not made yet.
		return nil, fault.New(fault.NotFound, "the issuer has no list of revoked certificates: it has no key here, may not sign lists, or came a moment ago")
	}
	if err == nil && der == nil {
		return nil, fault.New(fault.NotFound, "there is no delta list: config/crl enables them, and nothing was revoked since the last whole list")
	}
	return der, err
}

func (e *Engine) read(ctx context.Context, authority string, delta bool) (der []byte, err error) {
	err = e.env.Storage.View(ctx, func(r storage.Reader) error {
		der = nil
		h, err := storage.Load[head](r, headRows+authority)
		if err != nil || h == nil {
			return err
		}
		of := h.Full
		if delta {
			of = h.Delta
		}
		for n := range of.Pieces {
			piece, err := r.Get(pieceName(pieceRows+authority+"/"+of.Make+"/", n))
			if err != nil {
				return err
			}
			der = append(der, piece...)
		}
		return nil
	})
	return der, err
}

const (
	typeCRL    = "application/pkix-crl"
	typeCRLPEM = "application/x-pem-file"
)

func crlPEM(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}) }

func (e *Engine) raw(ctx context.Context, ref string, delta, text bool) (route.Raw, error) {
	der, err := e.list(ctx, ref, delta)
	if err != nil {
		return route.Raw{}, err
	}
	if text {
		return route.Raw{ContentType: typeCRLPEM, Body: crlPEM(der)}, nil
	}
	return route.Raw{ContentType: typeCRL, Body: der}, nil
}

func (e *Engine) fetchCRL(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Raw, error) {
	return e.raw(ctx, byDefault, false, false)
}

func (e *Engine) fetchCRLPEM(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Raw, error) {
	return e.raw(ctx, byDefault, false, true)
}

func (e *Engine) fetchDelta(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Raw, error) {
	return e.raw(ctx, byDefault, true, false)
}

func (e *Engine) fetchDeltaPEM(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Raw, error) {
	return e.raw(ctx, byDefault, true, true)
}

func (e *Engine) issuerCRLDER(ctx context.Context, _ route.Caller, in IssuerRef) (route.Raw, error) {
	return e.raw(ctx, in.Ref, false, false)
}

func (e *Engine) issuerCRLPEM(ctx context.Context, _ route.Caller, in IssuerRef) (route.Raw, error) {
	return e.raw(ctx, in.Ref, false, true)
}

func (e *Engine) issuerDeltaDER(ctx context.Context, _ route.Caller, in IssuerRef) (route.Raw, error) {
	return e.raw(ctx, in.Ref, true, false)
}

func (e *Engine) issuerDeltaPEM(ctx context.Context, _ route.Caller, in IssuerRef) (route.Raw, error) {
	return e.raw(ctx, in.Ref, true, true)
}

func (e *Engine) certList(ctx context.Context, delta bool) (Cert, error) {
	der, err := e.list(ctx, byDefault, delta)
	return Cert{Certificate: string(crlPEM(der))}, err
}

func (e *Engine) certCRL(ctx context.Context, _ route.Caller, _ route.Nothing) (Cert, error) {
	return e.certList(ctx, false)
}

func (e *Engine) certDelta(ctx context.Context, _ route.Caller, _ route.Nothing) (Cert, error) {
	return e.certList(ctx, true)
}

// CRL is a list of revoked certificates.
type CRL struct {
	CRL string `json:"crl"`
}

func (e *Engine) issuerCRL(ctx context.Context, _ route.Caller, in IssuerRef) (CRL, error) {
	der, err := e.list(ctx, in.Ref, false)
	return CRL{string(crlPEM(der))}, err
}

func (e *Engine) issuerDelta(ctx context.Context, _ route.Caller, in IssuerRef) (CRL, error) {
	der, err := e.list(ctx, in.Ref, true)
	return CRL{string(crlPEM(der))}, err
}

// Done says that something was done.
type Done struct {
	Success bool `json:"success"`
}

func (e *Engine) rotateLists(ctx context.Context, _ route.Caller, _ route.Nothing) (Done, error) {
	return Done{true}, e.buildAll(ctx, true)
}

func (e *Engine) rotateDeltas(ctx context.Context, _ route.Caller, _ route.Nothing) (Done, error) {
	c, err := e.crlConfigLately(ctx)
	if err != nil {
		return Done{}, err
	}
	if !c.Delta {
		return Done{}, fault.New(fault.Invalid, "delta lists are not enabled; config/crl enables them")
	}
	b, err := e.book(ctx)
	if err != nil {
		return Done{}, err
	}
	for _, authority := range b.authorities() {
		if b.signerOf(authority, usageCRL) == nil {
			continue
		}
		if err := e.build(ctx, authority, true); err != nil {
			return Done{}, err
		}
	}
	return Done{true}, nil
}

// without is a list without an item.
func without(list []string, item string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == item })
}

// pageOf sorts names that come of several lists, and cuts them to a page.
func pageOf(keys []string, in route.Page) route.Keys {
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if n := int(in.Limit); n > 0 && len(keys) > n {
		keys = keys[:n]
	}
	return route.Keys{Keys: keys}
}
