package broker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/cofferhq/coffer/internal/auth/issuer"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// Introspect says why a token does not hold now, "" when it does: it was signed here,
// with a key that is published, for the audience where one is named, has not expired,
// and its entity is there and not disabled. The rows are read anew.
func (s *Store) Introspect(ctx context.Context, token, audience string) (why string, err error) {
	// Package issuer refuses what could be taken for another thing than it is.
	want := expect(audience)
	if _, err := issuer.Unverified(token, want); err != nil {
		return refusal(err)
	}
	signed, err := jose.ParseSignedCompact(token, Algorithms)
	if err != nil {
		return "error parsing token: it is not a signed JSON web token", nil
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	now := time.Now()
	err = s.storage.View(ctx, func(r storage.Reader) (err error) {
		set.Keys = nil
		if want.Issuer, err = s.issuer(r); err != nil {
			return err
		}
		return storage.All(r, keyRows, func(e storage.Entry) error {
			k, err := storage.Decode[Key](e.Key, e.Value, nil)
			if err != nil {
				return err
			}
			for _, p := range k.published(now) {
				if p.ID == signed.Signatures[0].Header.KeyID {
					set.Keys = append(set.Keys, p.Public)
				}
			}
			return nil
		})
	})
	if err != nil {
		return "", err
	}
	if len(set.Keys) == 0 {
		return "unable to validate the token signature: no key of that id is published", nil
	}
	text, err := json.Marshal(set)
	if err != nil {
		return "", err
	}
	keys, err := issuer.New(issuer.Source{Document: text})
	if err != nil {
		return "", err
	}
	defer keys.Close()
	claims, err := keys.Verify(ctx, token, want)
	if err != nil {
		return refusal(err)
	}
	expires, err := claims.Time("exp")
	if err != nil || !now.Before(expires) {
		return "error validating claims: the token has expired", nil
	}
	who, err := s.Identities.Who(ctx, claims.Text("sub"))
	switch {
	case err != nil:
		return "", err
	case who == nil || who.Entity.ID != claims.Text("sub"):
		return "entity was not found", nil
	case who.Entity.Disabled:
		return "entity is disabled", nil
	}
	return "", nil
}

// expect is what a token of the issuer must be; its name is yet to be said.
func expect(audience string) issuer.Expect {
	// Another node's clock may have been ahead of this one's when it signed.
	want := issuer.Expect{NeedExpiry: true, Skew: job.MaxSkew}
	for _, a := range Algorithms {
		want.Algorithms = append(want.Algorithms, string(a))
	}
	if audience != "" {
		want.Audiences = []string{audience}
	}
	return want
}

// refusal says why a token was refused, as Vault does.
func refusal(err error) (string, error) {
	var reason issuer.Reason
	if !errors.As(err, &reason) {
		return "", err
	}
	text := fault.From(err).Message
	switch reason {
	case issuer.UnknownKey, issuer.WrongKey, issuer.Signature:
		return "unable to validate the token signature: " + text, nil
	case issuer.Expired, issuer.NotYet, issuer.Future, issuer.WrongIssuer, issuer.Audience, issuer.NoAudience, issuer.NoTime, issuer.BadClaims:
		return "error validating claims: " + text, nil
	}
	return "error parsing token: " + text, nil
}
