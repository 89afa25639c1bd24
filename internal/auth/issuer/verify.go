package issuer

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/cofferhq/coffer/internal/fault"
)

// Algorithms are the signature algorithms that are known (RFC 7518, RFC 8037).
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// Reason is why a token is refused. It is the cause of the fault that Verify
// returns: errors.As finds it.
type Reason string

// The reasons.
const (
	TooLong      Reason = "too long"             // more than MaxToken bytes
	Malformed    Reason = "malformed"            // no JWS in compact form
	Several      Reason = "several signatures"   // a JWS in JSON form
	Unsigned     Reason = "unsigned"             // alg is none
	Shared       Reason = "shared secret"        // alg is HS256 …
	Algorithm    Reason = "algorithm"            // alg is unknown, or not among those allowed
	Critical     Reason = "critical header"      // crit names what is not understood
	UnknownKey   Reason = "unknown key"          // no key of the issuer has that id
	WrongKey     Reason = "wrong kind of key"    // the key cannot have made that signature
	Signature    Reason = "signature"            // it does not match
	BadClaims    Reason = "claims"               // they are no JSON object, or a claim is of a wrong type
	NoTime       Reason = "no time"              // neither exp, nor iat, nor nbf; or no exp where it must be
	Expired      Reason = "expired"              // exp
	NotYet       Reason = "not yet valid"        // nbf
	Future       Reason = "issued in the future" // iat
	WrongIssuer  Reason = "issuer"               // iss
	NoAudience   Reason = "no audience"          // aud is missing, and audiences are expected
	Audience     Reason = "audience"             // aud
	WrongSubject Reason = "subject"              // sub
)

func (r Reason) Error() string { return string(r) }

func refuse(r Reason, format string, args ...any) error {
	return fault.Wrap(fault.Invalid, r, "%s", fmt.Sprintf(format, args...))
}

// Expect is what a token must be. Times are compared as Vault does.
type Expect struct {
	// Issuer is what iss must be. Where it is "" and keys come by discovery, it is
	// the issuer's name there; otherwise iss is not looked at.
	Issuer string
	// Subject is what sub must be; "" is any.
	Subject string
	// Audiences are those of which aud must hold one; none is any, or none at all.
	Audiences []string
	// Algorithms are those accepted; none is Algorithms.
	Algorithms []string
	// Skew is how far clocks may be apart. It counts for exp, nbf and iat.
	Skew time.Duration
	// NeedExpiry refuses a token without exp. Without it, such a token must have iat
	// or nbf and ends ExpiryAfter later. One without iat and nbf began StartBefore
	// its exp, or any time where that is 0.
	NeedExpiry bool
	// Timeless accepts a token without any time, which holds as long as its key does:
	// for those that are asked for elsewhere as well.
	Timeless                 bool
	ExpiryAfter, StartBefore time.Duration
}

// Verify returns what a token claims. A token that is refused is a fault of kind
// Invalid whose message says why, for the client, and whose cause is the Reason.
// A fault of kind Unavailable says that the issuer could not be asked for its keys,
// or what is wrong with its answer: that is no fault of the token.
func (i *Issuer) Verify(ctx context.Context, token string, want Expect) (Claims, error) {
	h, err := parseHeader(token, want.Algorithms)
	if err != nil {
		return nil, err
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(h.Algorithm)})
	if err != nil || len(signed.Signatures) != 1 {
		return nil, refuse(Malformed, "the token is not a signed JSON web token")
	}
	payload, err := i.payload(ctx, signed, h)
	if err != nil {
		return nil, err
	}
	claims, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	if want.Issuer == "" && i.found != nil {
		e, err := i.Endpoints(ctx)
		if err != nil {
			return nil, err
		}
		want.Issuer = e.Issuer
	}
	return claims, claims.check(want, i.now())
}

// Unverified returns what a token claims after all of Verify but the signature, and
// after that only as far as want goes. Anybody can have written it: it is for
// finding out whom to ask, and for refusing early what would be refused anyway.
func Unverified(token string, want Expect) (Claims, error) {
	h, err := parseHeader(token, want.Algorithms)
	if err != nil {
		return nil, err
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(h.Algorithm)})
	if err != nil || len(signed.Signatures) != 1 {
		return nil, refuse(Malformed, "the token is not a signed JSON web token")
	}
	claims, err := parseClaims(signed.UnsafePayloadWithoutVerification())
	if err != nil {
		return nil, err
	}
	return claims, claims.check(want, time.Now())
}

// header is what of a token's header counts. Headers that name or hold keys (jku,
// jwk, x5u, x5c) do not: whoever signs would choose the key.
type header struct {
	Algorithm string         `json:"alg"`
	KeyID     string         `json:"kid"`
	Critical  jsontext.Value `json:"crit"`
}

// base64url are the characters of a token. Decoders skip line breaks, of which the
// signature knows nothing.
const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

// parseHeader reads a token's header and refuses what must not even be verified.
func parseHeader(token string, algorithms []string) (h header, err error) {
	switch {
	case len(token) > MaxToken:
		return h, refuse(TooLong, "the token is %d bytes long; at most %d are accepted", len(token), MaxToken)
	case strings.HasPrefix(strings.TrimSpace(token), "{"):
		return h, refuse(Several, "the token is in JSON form, which can carry several signatures; send it in compact form, three parts with dots between")
	case strings.Count(token, ".") != 2:
		return h, refuse(Malformed, "the token is not a signed JSON web token: it has %d parts and not 3, with dots between", strings.Count(token, ".")+1)
	}
	if strings.ContainsFunc(token, func(c rune) bool { return !strings.ContainsRune(base64url, c) }) {
		return h, refuse(Malformed, "the token holds a character that no token has; was it copied whole, and without line breaks?")
	}
	first, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.Strict().DecodeString(first)
	if err != nil {
		return h, refuse(Malformed, "the token's header is not in base64url")
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, refuse(Malformed, "the token's header is not a JSON object with each name once")
	}
	if len(algorithms) == 0 {
		algorithms = Algorithms
	}
	switch {
	case strings.EqualFold(h.Algorithm, "none") || h.Algorithm == "":
		return h, refuse(Unsigned, "the token is not signed")
	case strings.HasPrefix(strings.ToUpper(h.Algorithm), "HS"):
		return h, refuse(Shared, "the token is signed with a shared secret (%s), which is never accepted", clip(h.Algorithm))
	case !slices.Contains(Algorithms, h.Algorithm) || !slices.Contains(algorithms, h.Algorithm):
		return h, refuse(Algorithm, "the token is signed with %q; accepted are %s", clip(h.Algorithm), strings.Join(algorithms, ", "))
	case h.Critical != nil:
		return h, refuse(Critical, "the token's header calls parts critical that are not understood here")
	}
	return h, nil
}

// payload verifies a token's signature and returns what it signs.
func (i *Issuer) payload(ctx context.Context, signed *jose.JSONWebSignature, h header) ([]byte, error) {
	try := func(keys []jose.JSONWebKey) ([]byte, error) {
		return verifyWith(keys, signed, h)
	}
	if i.found == nil && i.fetched == nil {
		return try(i.static)
	}
	var all []jose.JSONWebKey
	var away error
	for _, d := range i.fetched {
		keys, err := i.keysOf(ctx, d, false)
		if err != nil {
			away = err
			continue
		}
		all = append(all, keys...)
	}
	payload, err := try(all)
	if err == nil || away == nil && !worthAsking(err, h) {
		return payload, err
	}
	// The issuer may have begun to use a new key.
	all, away = nil, nil
	for _, d := range i.fetched {
		keys, err := i.keysOf(ctx, d, true)
		if err != nil {
			away = err
			continue
		}
		all = append(all, keys...)
	}
	if payload, err = try(all); err != nil && away != nil {
		return nil, away // which could have had the key
	}
	return payload, err
}

// worthAsking reports whether newer keys could make a refused token good.
func worthAsking(err error, h header) bool {
	r := fault.From(err).Cause
	return r == UnknownKey || h.KeyID == "" && (r == Signature || r == WrongKey)
}

// verifyWith tries the keys that can be meant.
func verifyWith(keys []jose.JSONWebKey, signed *jose.JSONWebSignature, h header) ([]byte, error) {
	named, fit := false, false
	for _, key := range keys {
		if h.KeyID != "" && key.KeyID != "" && key.KeyID != h.KeyID {
			continue
		}
		named = true
		if key.Algorithm != "" && key.Algorithm != h.Algorithm || !slices.Contains(algorithmsOf(key.Key), h.Algorithm) {
			continue
		}
		fit = true
		if payload, err := signed.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	switch {
	case !named:
		return nil, refuse(UnknownKey, "the issuer has no key %q; it may be of another issuer, or withdrawn", clip(h.KeyID))
	case !fit:
		return nil, refuse(WrongKey, "the issuer's key %q does not make signatures of %s", clip(h.KeyID), h.Algorithm)
	}
	return nil, refuse(Signature, "the token's signature does not match the issuer's key")
}
