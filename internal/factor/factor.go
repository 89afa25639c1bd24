// Package factor is the second factor of logins: which logins need one, what proves it,
// and logins that wait for it. Its words and shapes are Vault's "login MFA".
//
// A method is a way to prove a factor; a rule says which logins need one of which
// methods. A login that needs one waits as a row, which any node can take up, until the
// factor is proven or its time is over. The package mints no tokens: the gateway does,
// once a login is complete.
package factor

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/storage"
)

// Limits.
const (
	MaxRules   = 500
	MaxMethods = 500
	MaxList    = 1000 // names in one list of a rule
	// Waits is how long a login waits for its factor.
	Waits = 5 * time.Minute
	// MaxWaiting is how many logins of an entity wait at once; an older one ends.
	MaxWaiting = 5
)

// Method is a way to prove a factor: TOTP (RFC 6238).
type Method struct {
	ID          string        `json:"id"`
	Name        string        `json:"name,omitempty"`
	Issuer      string        `json:"issuer"`
	Period      time.Duration `json:"period"`
	Algorithm   string        `json:"algorithm"` // SHA1, SHA256 or SHA512
	Digits      int           `json:"digits"`
	Skew        int           `json:"skew"`     // periods before and after that are accepted
	KeySize     int           `json:"key_size"` // bytes
	QRSize      int           `json:"qr_size"`  // pixels; 0 makes no picture
	MaxAttempts int           `json:"max_attempts"`
}

// TOTP is the type of every method there is.
const TOTP = "totp"

// Rule says which logins need a factor, by one of its methods. A login that any of the
// lists names needs it.
type Rule struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Methods   []string `json:"methods"`             // ids
	Accessors []string `json:"accessors,omitempty"` // of auth methods
	Types     []string `json:"types,omitempty"`     // of auth methods
	Groups    []string `json:"groups,omitempty"`    // ids
	Entities  []string `json:"entities,omitempty"`  // ids
}

// covers reports whether a login needs the rule's factor.
func (r *Rule) covers(who *identity.Who, accessor, kind string) bool {
	if slices.Contains(r.Accessors, accessor) || slices.Contains(r.Types, kind) {
		return true
	}
	return who != nil && (slices.Contains(r.Entities, who.Entity.ID) ||
		slices.ContainsFunc(who.Groups, func(g *identity.Group) bool { return slices.Contains(r.Groups, g.ID) }))
}

// Waiting is a login that waits for its factor.
type Waiting struct {
	Login    json.RawMessage `json:"login"` // an auth.Login
	Entity   string          `json:"entity"`
	Mount    string          `json:"mount"` // accessor of the method that the login proved itself to
	Path     string          `json:"path"`  // of the login's request
	Rules    []Rule          `json:"rules"` // all of which must be satisfied
	Expires  time.Time       `json:"expires"`
	Attempts int             `json:"attempts"` // that failed
}

// Rows, below the prefix of a namespace.
const (
	rows        = "core/factors/"
	methodRows  = "method/"  // + id: Method
	ruleRows    = "rule/"    // + name: Rule
	secretRows  = "secret/"  // + method + "/" + entity: secret
	waitingRows = "waiting/" // + entity + "/" + fingerprint of the request's id: Waiting
)

// Options are what a Store needs.
type Options struct {
	Barrier    *barrier.Barrier
	Prefix     string // of the namespace; "" for the root
	Identities *identity.Store
	Log        *slog.Logger
}

// Store keeps the factors of a namespace.
type Store struct {
	Options
	storage storage.Engine
	scope   string
	changes atomic.Uint64 // counts what may have changed the rules
	rules   atomic.Pointer[read]
	now     func() time.Time
	leave   func()
}

// read is the rules as they were read at some time.
type read struct {
	rules   []Rule
	changes uint64 // before they were read: what changed meanwhile makes them old
}

// New returns the store of a namespace's factors.
func New(o Options) *Store {
	s := &Store{Options: o, scope: barrier.CoreScope, now: time.Now}
	if o.Prefix != "" {
		s.scope = strings.TrimSuffix(o.Prefix, "/")
	}
	s.storage = storage.Sub(o.Barrier, o.Prefix+rows)
	s.leave = o.Barrier.Subscribe(o.Prefix+rows+ruleRows, func(context.Context) error {
		s.changes.Add(1)
		return nil
	})
	return s
}

// Close ends following changes.
func (s *Store) Close() { s.leave() }

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// errProof is the one refusal of a factor that is not proven, whatever the reason, so
// that a used passcode is not told from a wrong one.
func errProof() error {
	return fault.New(fault.Denied, "login MFA validation failed: MFA credentials not supplied or incorrect")
}

// Rules returns the rules, in the order of their names.
func (s *Store) Rules(ctx context.Context) ([]Rule, error) {
	changes := s.changes.Load()
	if known := s.rules.Load(); known != nil && known.changes == changes && s.Barrier.Fresh() {
		return known.rules, nil
	}
	all := []Rule{}
	err := s.storage.View(ctx, func(r storage.Reader) error {
		all = all[:0]
		return storage.All(r, ruleRows, func(e storage.Entry) error {
			rule, err := storage.Decode[Rule](e.Key, e.Value, nil)
			if err == nil {
				all = append(all, *rule)
			}
			return err
		})
	})
	if err == nil {
		s.rules.Store(&read{all, changes})
	}
	return all, err
}

// Needed returns the rules that a login must satisfy. One that needs a factor, of
// whoever no entity is known for, is denied: there is nobody who could have one.
func (s *Store) Needed(ctx context.Context, entity, accessor, kind string) (out []Rule, err error) {
	rules, err := s.Rules(ctx)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	var who *identity.Who
	if entity != "" {
		if who, err = s.Identities.Who(ctx, entity); err != nil {
			return nil, err
		}
	}
	for _, r := range rules {
		if r.covers(who, accessor, kind) {
			out = append(out, r)
		}
	}
	if len(out) > 0 && who == nil {
		return nil, fault.New(fault.Denied, "permission denied: the login needs a second factor, and no entity is known that could have one")
	}
	return out, nil
}

// Begin keeps a login until its factor is proven, and returns the id by which that is
// done.
func (s *Store) Begin(ctx context.Context, w Waiting) (id string, err error) {
	id = uuid.NewString()
	w.Expires = s.now().Add(Waits).UTC()
	prefix := waitingRows + w.Entity + "/"
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		waiting, err := t.Scan(prefix, "", MaxWaiting+1)
		if err != nil {
			return err
		}
		left := len(waiting)
		for _, e := range waiting {
			old, err := storage.Decode[Waiting](e.Key, e.Value, nil)
			if err != nil {
				return err
			}
			if left >= MaxWaiting || !s.now().Before(old.Expires) {
				left--
				if err := t.Delete(e.Key); err != nil {
					return err
				}
			}
		}
		return storage.Save(t, s.waitingKey(w.Entity, id), w)
	})
	return id + "." + w.Entity, err
}

// waitingKey is where a login waits. Its id is a secret, and kept as a fingerprint.
func (s *Store) waitingKey(entity, id string) string {
	return waitingRows + entity + "/" + s.Barrier.Fingerprint(s.scope, []byte("mfa request "+id))
}

// MaxAttempts is how many wrong proofs a waiting login survives.
const maxAttempts = 5

// Complete proves a waiting login's factors with what was given for each method, by
// its id or its name, and returns the login. It is over then, also when it failed too
// often. Errors are faults: Invalid for a login that does not wait, Denied for a factor
// that is not proven.
func (s *Store) Complete(ctx context.Context, requestID string, given map[string][]string) (*Waiting, error) {
	id, entity, ok := strings.Cut(requestID, ".")
	if !ok || len(requestID) > 128 || strings.ContainsAny(entity, "/\x00") || entity == "" {
		return nil, invalid("invalid request ID")
	}
	key := s.waitingKey(entity, id)
	w, err := storage.LoadFrom[Waiting](ctx, s.storage, key)
	if err != nil {
		return nil, err
	}
	if w == nil || !s.now().Before(w.Expires) {
		return nil, invalid("invalid request ID")
	}
	if err := s.Prove(ctx, w.Entity, w.Rules, given); err != nil {
		if fault.Is(err, fault.Denied) {
			err = errors.Join(err, s.failed(context.WithoutCancel(ctx), key))
			return nil, firstFault(err)
		}
		return nil, err
	}
	// Of two who prove it at once, one gets the login.
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		now, err := storage.Load[Waiting](t, key)
		if err != nil {
			return err
		}
		if now == nil {
			return invalid("invalid request ID")
		}
		return t.Delete(key)
	})
	return w, err
}

// firstFault is the fault among joined errors that the client is told.
func firstFault(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return known
	}
	return err
}

// failed counts a wrong proof of a waiting login.
func (s *Store) failed(ctx context.Context, key string) error {
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		w, err := storage.Load[Waiting](t, key)
		if err != nil || w == nil {
			return err
		}
		if w.Attempts++; w.Attempts >= maxAttempts {
			return t.Delete(key)
		}
		return storage.Save(t, key, w)
	})
	return err
}

// Prove proves the factors that rules need: of each, one of its methods.
func (s *Store) Prove(ctx context.Context, entity string, rules []Rule, given map[string][]string) error {
	proven := map[string]bool{} // by method: a passcode proves one factor of several rules
	for _, r := range rules {
		if slices.ContainsFunc(r.Methods, func(id string) bool { return proven[id] }) {
			continue
		}
		ok := false
		for _, id := range r.Methods {
			m, err := storage.LoadFrom[Method](ctx, s.storage, methodRows+id)
			if err != nil {
				return err
			}
			if m == nil {
				continue
			}
			codes := given[id]
			if codes == nil && m.Name != "" {
				codes = given[m.Name]
			}
			if len(codes) != 1 {
				continue
			}
			if ok, err = s.proves(ctx, m, entity, strings.TrimPrefix(codes[0], "passcode=")); err != nil {
				return err
			}
			if ok {
				proven[id] = true
				break
			}
		}
		if !ok {
			return errProof()
		}
	}
	return nil
}

// Sweep removes logins that waited for too long, and the secrets of entities that are
// gone.
func (s *Store) Sweep(ctx context.Context) error {
	return errors.Join(s.sweepWaiting(ctx), s.sweepSecrets(ctx))
}

func (s *Store) sweepSecrets(ctx context.Context) error {
	for after := ""; ; {
		var page []storage.Entry
		if err := s.storage.View(ctx, func(r storage.Reader) (err error) {
			page, err = r.Scan(secretRows, after, 64)
			return err
		}); err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			after = e.Key
			entity := e.Key[strings.LastIndexByte(e.Key, '/')+1:]
			who, err := s.Identities.Who(ctx, entity)
			if err != nil {
				return err
			}
			if who != nil && who.Entity.ID == entity {
				continue
			}
			if _, err := s.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(e.Key) }); err != nil {
				return err
			}
		}
	}
}

func (s *Store) sweepWaiting(ctx context.Context) error {
	for after := ""; ; {
		var page []storage.Entry
		if err := s.storage.View(ctx, func(r storage.Reader) (err error) {
			page, err = r.Scan(waitingRows, after, 64)
			return err
		}); err != nil || len(page) == 0 {
			return err
		}
		if _, err := s.storage.Update(ctx, func(t storage.Txn) error {
			for _, e := range page {
				w, err := storage.Load[Waiting](t, e.Key)
				if err != nil {
					return err
				}
				if w != nil && !s.now().Before(w.Expires) {
					if err := t.Delete(e.Key); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return err
		}
		after = page[len(page)-1].Key
	}
}
