package broker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/storage"
)

// Published is what everybody may know of an issuer.
type Published struct {
	Issuer string // "" where it is not known
	// Keys is the document of the public keys (RFC 7517, section 5).
	Keys []byte
	// MaxAge is how long Keys may be kept: a pair that is not in it signs later.
	MaxAge time.Duration
}

// document is Published as it was at some time.
type document struct {
	Published
	changes uint64    // when it was read
	until   time.Time // when a pair of it is published no more
}

// Published returns what is published now, from memory where that is current. Other
// nodes' changes are in it a second later at most, which is why no pair signs sooner.
func (s *Store) Published(ctx context.Context) (*Published, error) {
	now := time.Now()
	if d := s.known.Load(); d != nil && s.Barrier.Fresh() && d.changes == s.changes.Load() && now.Before(d.until) {
		return &d.Published, nil
	}
	d := &document{changes: s.changes.Load()} // before the rows are read: a change meanwhile makes it old
	keys := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	err := s.storage.View(ctx, func(r storage.Reader) (err error) {
		keys.Keys = keys.Keys[:0]
		d.MaxAge, d.until = MaxCached, now.Add(MaxCached)
		if d.Issuer, err = s.issuer(r); err != nil && !errors.Is(err, errIssuer) {
			return err
		}
		return storage.All(r, keyRows, func(e storage.Entry) error {
			k, err := storage.Decode[Key](e.Key, e.Value, nil)
			if err != nil {
				return err
			}
			d.MaxAge = min(d.MaxAge, k.lead())
			for _, p := range k.published(now) {
				keys.Keys = append(keys.Keys, p.Public)
				if !p.Until.IsZero() && p.Until.After(now) {
					d.until = earlier(d.until, p.Until)
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if d.Keys, err = json.Marshal(keys); err != nil {
		return nil, err
	}
	s.known.Store(d)
	return &d.Published, nil
}

// Discovery is what verifiers need of OpenID Connect Discovery 1.0, section 3.
type Discovery struct {
	Issuer     string                    `json:"issuer"`
	Keys       string                    `json:"jwks_uri"`
	Responses  []string                  `json:"response_types_supported"`
	Subjects   []string                  `json:"subject_types_supported"`
	Algorithms []jose.SignatureAlgorithm `json:"id_token_signing_alg_values_supported"`
}

// Discovery returns the issuer's discovery document. It is refused where the issuer is
// not known.
func (s *Store) Discovery(ctx context.Context) (*Discovery, error) {
	p, err := s.Published(ctx)
	if err != nil {
		return nil, err
	}
	if p.Issuer == "" {
		return nil, errNoIssuer()
	}
	return &Discovery{
		Issuer: p.Issuer, Keys: p.Issuer + "/.well-known/keys", Responses: []string{"id_token"}, Subjects: []string{"public"}, Algorithms: Algorithms,
	}, nil
}
