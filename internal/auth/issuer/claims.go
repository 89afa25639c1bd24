package issuer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Claims are what a token says: JSON as encoding/json decodes it, with numbers as
// json.Number, exactly as they stood.
type Claims map[string]any

func parseClaims(payload []byte) (Claims, error) {
	var c Claims
	if err := strictJSON(payload, &c); err != nil || c == nil {
		return nil, refuse(BadClaims, "the token's claims are not a JSON object with each name once")
	}
	return c, nil
}

// strictJSON decodes one JSON object in which no name stands twice, since two
// readers could take different ones.
func strictJSON(text []byte, into any) error {
	if !jsontext.Value(text).IsValid() || len(bytes.TrimSpace(text)) == 0 || bytes.TrimSpace(text)[0] != '{' {
		return errors.New("not a JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(into)
}

// Find returns a claim by its name or, where name begins with a slash, by a JSON
// pointer (RFC 6901): "sub", "/kubernetes.io/namespace". It is nil when there is
// none.
func (c Claims) Find(name string) any {
	if !strings.HasPrefix(name, "/") {
		return c[name]
	}
	var at any = map[string]any(c)
	for step := range strings.SplitSeq(name[1:], "/") {
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n < 0 || n >= len(v) || strconv.Itoa(n) != step {
				return nil
			}
			at = v[n]
		default:
			return nil
		}
	}
	return at
}

// Text returns a claim that is a string, by name or pointer; "" when it is none.
func (c Claims) Text(name string) string {
	text, _ := c.Find(name).(string)
	return text
}

// Texts returns a claim that is a string or a list of strings; ok is false when it
// is something else. A claim that is not there is an empty list.
func (c Claims) Texts(name string) (list []string, ok bool) {
	switch v := c.Find(name).(type) {
	case nil:
		return nil, true
	case string:
		return []string{v}, true
	case []any:
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, false
			}
			list = append(list, text)
		}
		return list, true
	}
	return nil, false
}

// Time returns a claim that is a time in seconds since 1970; the zero time when it
// is not there. Errors are faults that name the claim.
func (c Claims) Time(name string) (time.Time, error) {
	v := c.Find(name)
	if v == nil {
		return time.Time{}, nil
	}
	number, ok := v.(json.Number)
	seconds, err := number.Float64()
	// Beyond the year 9999, and before 1970, nobody means a time.
	if !ok || err != nil || math.IsNaN(seconds) || seconds < 0 || seconds > 253402300799 {
		return time.Time{}, refuse(BadClaims, "the token's claim %s is not a time in seconds since 1970", name)
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// check refuses claims that are not as expected at a time.
func (c Claims) check(want Expect, now time.Time) error {
	if err := c.checkTimes(want, now); err != nil {
		return err
	}
	if want.Issuer != "" && c.Text("iss") != want.Issuer {
		return refuse(WrongIssuer, "the token is of the issuer %q and not of %q", clip(c.Text("iss")), want.Issuer)
	}
	if want.Subject != "" && c.Text("sub") != want.Subject {
		return refuse(WrongSubject, "the token's subject is %q, and another is expected", clip(c.Text("sub")))
	}
	if len(want.Audiences) == 0 {
		return nil
	}
	given, ok := c.Texts("aud")
	switch {
	case !ok:
		return refuse(BadClaims, "the token's claim aud is neither a string nor a list of strings")
	case len(given) == 0:
		return refuse(NoAudience, "the token is for no audience, and one is expected")
	case !slices.ContainsFunc(given, func(a string) bool { return slices.Contains(want.Audiences, a) }):
		return refuse(Audience, "the token is for the audience %q, and another is expected", clip(strings.Join(given, ", ")))
	}
	return nil
}

// checkTimes refuses what is over or has not begun.
func (c Claims) checkTimes(want Expect, now time.Time) error {
	expires, err := c.Time("exp")
	issued, err2 := c.Time("iat")
	starts, err3 := c.Time("nbf")
	if err := cmp.Or(err, err2, err3); err != nil {
		return err
	}
	switch {
	case expires.IsZero() && want.NeedExpiry:
		return refuse(NoTime, "the token has no expiry (exp)")
	case want.Timeless && expires.IsZero():
		expires = now.Add(time.Hour)
	case expires.IsZero() && issued.IsZero() && starts.IsZero():
		return refuse(NoTime, "the token has none of exp, iat and nbf, so nobody knows how old it is")
	case expires.IsZero():
		expires = issued
		if starts.After(expires) {
			expires = starts
		}
		expires = expires.Add(want.ExpiryAfter)
	}
	if starts.IsZero() {
		starts = issued
	}
	if starts.IsZero() && want.StartBefore > 0 {
		starts = expires.Add(-want.StartBefore)
	}
	switch {
	case !now.Before(expires.Add(want.Skew)):
		return refuse(Expired, "the token is expired since %v", now.Sub(expires).Truncate(time.Second))
	case starts.After(now.Add(want.Skew)) && !issued.Equal(starts):
		return refuse(NotYet, "the token is not valid yet (nbf), for another %v; are the clocks right?", starts.Sub(now).Truncate(time.Second))
	case issued.After(now.Add(want.Skew)):
		return refuse(Future, "the token was issued (iat) %v in the future; are the clocks right?", issued.Sub(now).Truncate(time.Second))
	}
	return nil
}
