package broker

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
)

// Key is a named key.
type Key struct {
	Name         string                  `json:"name"`
	Algorithm    jose.SignatureAlgorithm `json:"algorithm"` // of the pairs that are made
	Rotation     time.Duration           `json:"rotation"`
	Verification time.Duration           `json:"verification"` // how long a pair is published that signs no more
	Clients      []string                `json:"clients,omitempty"`
	Signing      Pair                    `json:"signing"`
	Next         Pair                    `json:"next"`          // published, and signs after Signing
	Old          []Pair                  `json:"old,omitempty"` // verify until their time is over
	Rotates      time.Time               `json:"rotates"`       // by Rotation
	// Hold is when the last document that verifiers may keep for longer than lead is
	// over: a pair that is published from now on does not sign before.
	Hold time.Time `json:"hold,omitzero"`
}

// Pair is a key pair of a named key.
type Pair struct {
	ID        string                  `json:"id"` // kid
	Algorithm jose.SignatureAlgorithm `json:"algorithm"`
	Public    json.RawMessage         `json:"public"`           // as it is published: a JWK (RFC 7517)
	Private   json.RawMessage         `json:"private,omitzero"` // JWK; gone from pairs that sign no more
	From      time.Time               `json:"from"`             // it signs no earlier, unless people rotate the key
	// Until is when the pair is published no more, if it is old; for one that signs
	// the least that has been promised, zero for nothing beyond Verification.
	Until time.Time `json:"until,omitzero"`
}

// lead is how long before its use a pair is published at least, and how long the
// published document may be kept while the key is in it.
func (k *Key) lead() time.Duration { return min(MaxCached, k.Rotation/2) }

// Due is when the next pair begins to sign.
func (k *Key) Due() time.Time {
	if k.Next.From.After(k.Rotates) {
		return k.Next.From
	}
	return k.Rotates
}

// event is when something is next to be done about the key.
func (k *Key) event() time.Time {
	at := k.Due()
	for i := range k.Old {
		if k.Old[i].Until.Before(at) {
			at = k.Old[i].Until
		}
	}
	return at
}

// begin gives a new key its pairs.
func (k *Key) begin(now time.Time, f *forge) (err error) {
	if k.Signing, err = f.take(k.Algorithm); err != nil {
		return err
	}
	k.Signing.From, k.Rotates = now, now.Add(k.Rotation)
	return k.announce(now, f)
}

// announce publishes another pair as the next. Another node hears of it a moment later.
func (k *Key) announce(now time.Time, f *forge) (err error) {
	if k.Next, err = f.take(k.Algorithm); err != nil {
		return err
	}
	k.Next.From = now.Add(k.lead() + slack)
	if k.Hold.After(k.Next.From) {
		k.Next.From = k.Hold
	}
	return nil
}

// drop forgets pairs whose time is over.
func (k *Key) drop(now time.Time) {
	k.Old = slices.DeleteFunc(k.Old, func(p Pair) bool { return !now.Before(p.Until) })
}

// turn makes the next pair sign. The one that signed is published until a time, and
// no more where that is not to come.
func (k *Key) turn(now, until time.Time, f *forge) error {
	old := k.Signing
	old.Private, old.Until = nil, until
	k.drop(now)
	if now.Before(until) {
		k.Old = append(k.Old, old)
	}
	k.Signing, k.Rotates = k.Next, now.Add(k.Rotation)
	return k.announce(now, f)
}

// slack is how much longer than its verification a pair is published, for a node that
// was just about to sign or whose clock is ahead, and how much longer than its lead
// before it signs, for one that has not heard of it.
const slack = 5 * time.Second

// kept is when the pair that signs is to be published no more, should it sign until
// now.
func (k *Key) kept(now time.Time) time.Time {
	until := now.Add(k.Verification + slack)
	if k.Signing.Until.After(until) {
		return k.Signing.Until
	}
	return until
}

// published returns the pairs that verify at a time.
func (k *Key) published(now time.Time) []Pair {
	all := []Pair{k.Signing, k.Next}
	for _, p := range k.Old {
		if now.Before(p.Until) {
			all = append(all, p)
		}
	}
	return all
}

// signs reports whether one of the client ids may have tokens signed by the key.
func (k *Key) signs(client string) bool {
	return slices.Contains(k.Clients, "*") || slices.Contains(k.Clients, client)
}

// forge makes pairs before a transaction needs them, in which there is no time for it.
// A transaction that lacks one fails with errUnforged, and is run again.
type forge struct {
	ready []Pair
	taken int
	wants jose.SignatureAlgorithm
}

var errUnforged = errors.New("a key pair has to be made first")

func (f *forge) take(algorithm jose.SignatureAlgorithm) (Pair, error) {
	if f.taken < len(f.ready) && f.ready[f.taken].Algorithm == algorithm {
		f.taken++
		return f.ready[f.taken-1], nil
	}
	f.wants = algorithm
	return Pair{}, errUnforged
}

// run calls a transaction until it lacks no pair.
func (f *forge) run(transact func(*forge) error) error {
	for {
		f.taken = 0
		err := transact(f)
		if !errors.Is(err, errUnforged) {
			return err
		}
		p, err := newPair(f.wants)
		if err != nil {
			return err
		}
		f.ready = append(f.ready[:f.taken], p)
	}
}

// rsaBits is how long RSA keys are.
const rsaBits = 2048

func newPair(algorithm jose.SignatureAlgorithm) (p Pair, err error) {
	key := jose.JSONWebKey{KeyID: uuid.NewString(), Algorithm: string(algorithm), Use: "sig"}
	switch algorithm {
	case jose.RS256, jose.RS384, jose.RS512:
		key.Key, err = rsa.GenerateKey(rand.Reader, rsaBits)
	case jose.ES256:
		key.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		key.Key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		key.Key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jose.EdDSA:
		_, key.Key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("unknown signing algorithm")
	}
	if err != nil {
		return p, err
	}
	p.ID, p.Algorithm = key.KeyID, algorithm
	if p.Private, err = key.MarshalJSON(); err != nil {
		return p, err
	}
	public := key.Public()
	p.Public, err = public.MarshalJSON()
	return p, err
}

// sign signs a payload, as a JWS in compact form (RFC 7515).
func (p *Pair) sign(payload []byte) (string, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(p.Private); err != nil {
		return "", errors.New("the private key of an identity token's key cannot be read")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.Algorithm, Key: key}, nil)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
