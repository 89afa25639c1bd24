// Package wire holds the types that stand on the wire: the lenient scalars
// that Vault clients send (durations as "1h" or 3600, lists as "a,b" or
// ["a","b"], numbers and booleans as strings), secrets that print a redaction,
// and the strict reading of a request body. Leniency lives here and nowhere
// else.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxTTL is the longest duration accepted from a client: 100 years. Longer ones
// are typing mistakes or overflow.
const MaxTTL = 100 * 365 * 24 * time.Hour

// ParseDuration reads a duration as clients write it: a Go duration, the same
// with days ("30d"), or a number of seconds. It refuses durations beyond ±MaxTTL.
func ParseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return seconds(float64(n))
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return seconds(f)
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil {
			return 0, errors.New("it is not a duration; write for example 1h, 30d or 3600")
		}
		return seconds(n * 24 * 3600)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("it is not a duration; write for example 1h, 30d or 3600")
	}
	return bounded(d)
}

func seconds(f float64) (time.Duration, error) {
	if math.IsNaN(f) || math.Abs(f) > MaxTTL.Seconds() {
		return 0, errBeyond()
	}
	return time.Duration(f * float64(time.Second)), nil
}

// The errors of this package never repeat what was sent: it could be a secret
// under the wrong name, and they are written to the audit log.
func errBeyond() error { return fmt.Errorf("it is beyond the limit of %v", MaxTTL) }

func bounded(d time.Duration) (time.Duration, error) {
	if d > MaxTTL || d < -MaxTTL {
		return 0, errBeyond()
	}
	return d, nil
}

// Seconds is a duration that is answered as a whole number of seconds.
type Seconds time.Duration

// Duration returns s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// MarshalJSON writes whole seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendInt(nil, int64(time.Duration(s)/time.Second), 10), nil
}

// UnmarshalJSON accepts what ParseDuration accepts, quoted or not, and null.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	text, err := scalar(b, "a duration")
	if err != nil {
		return err
	}
	d, err := ParseDuration(text)
	*s = Seconds(d)
	return err
}

// Duration is a duration that is answered as text ("1h0m0s").
type Duration time.Duration

// Duration returns d as a time.Duration.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// MarshalJSON writes Go's text of the duration.
func (d Duration) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, time.Duration(d).String()), nil
}

// UnmarshalJSON accepts what ParseDuration accepts, quoted or not, and null.
func (d *Duration) UnmarshalJSON(b []byte) error { return (*Seconds)(d).UnmarshalJSON(b) }

// Lifetime is a duration in a change of settings: "" and null leave what is
// set, "system" returns to the standard, and any other sets it.
type Lifetime struct {
	Given    bool // something is to be set
	Standard bool // the standard is to be set; TTL is 0
	TTL      time.Duration
}

// UnmarshalJSON accepts what ParseDuration accepts, quoted or not, "system" and
// null.
func (l *Lifetime) UnmarshalJSON(b []byte) error {
	*l = Lifetime{}
	text, err := scalar(b, "a duration")
	if err != nil || text == "" {
		return err
	}
	l.Given, l.Standard = true, text == "system"
	if !l.Standard {
		l.TTL, err = ParseDuration(text)
	}
	return err
}

// Into sets dst where something is to be set.
func (l Lifetime) Into(dst *Seconds) {
	if l.Given {
		*dst = Seconds(l.TTL)
	}
}

// Int is a whole number that may come as a string.
type Int int64

// UnmarshalJSON accepts a whole number, quoted or not; "" and null are 0.
func (i *Int) UnmarshalJSON(b []byte) error {
	text, err := scalar(b, "a whole number")
	if err != nil || text == "" {
		*i = 0
		return err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			return errors.New("it is not a whole number")
		}
		n = int64(f)
	}
	*i = Int(n)
	return nil
}

// Float is a number that may come as a string.
type Float float64

// UnmarshalJSON reads a number that is finite.
func (f *Float) UnmarshalJSON(b []byte) error {
	text, err := scalar(b, "a number")
	if err != nil {
		return err
	}
	n := 0.0
	if text != "" {
		n, err = strconv.ParseFloat(text, 64)
	}
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return errors.New("it must be a number")
	}
	*f = Float(n)
	return nil
}

// Bool is a boolean that may come as a string or a number.
type Bool bool

// UnmarshalJSON accepts true, false, their quoted forms, 1 and 0; "" and null are false.
func (v *Bool) UnmarshalJSON(b []byte) error {
	text, err := scalar(b, "true or false")
	if err != nil || text == "" {
		*v = false
		return err
	}
	t, err := strconv.ParseBool(text)
	if err != nil {
		return errors.New("it is neither true nor false")
	}
	*v = Bool(t)
	return nil
}

// Strings is a list of strings that may come as one comma-separated string. It
// is answered as a list, never as null.
type Strings []string

// MarshalJSON writes a list.
func (s Strings) MarshalJSON() ([]byte, error) {
	if s == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]string(s))
}

// UnmarshalJSON accepts a list of scalars or a comma-separated string. Parts
// are trimmed; empty parts are dropped.
func (s *Strings) UnmarshalJSON(b []byte) error {
	*s = nil
	if len(b) > 0 && b[0] == '[' {
		var items []jsontext.Value
		if err := json.Unmarshal(b, &items); err != nil {
			return err
		}
		for _, item := range items {
			text, err := scalar(item, "a list of strings")
			if err != nil {
				return err
			}
			*s = append(*s, text)
		}
		return nil
	}
	text, err := scalar(b, "a list of strings")
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*s = append(*s, part)
		}
	}
	return nil
}

// StringMap is a map of strings that may come as an object of scalars, as one
// written in a string, as "k=v,k=v" or as a list of "k=v". It is answered as an object, never as null.
type StringMap map[string]string

// MarshalJSON writes an object with its keys in order.
func (m StringMap) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]string(m), json.Deterministic(true))
}

// UnmarshalJSON accepts an object of scalars, or pairs.
func (m *StringMap) UnmarshalJSON(b []byte) error {
	*m = nil
	if len(b) == 0 || string(b) == "null" {
		return nil
	}
	out := StringMap{}
	if b[0] == '{' {
		var object map[string]jsontext.Value
		if err := json.Unmarshal(b, &object); err != nil {
			return err
		}
		for k, v := range object {
			text, err := scalar(v, "an object of strings")
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			out[k] = text
		}
		*m = out
		return nil
	}
	if text, err := scalar(b, ""); err == nil && strings.HasPrefix(strings.TrimSpace(text), "{") {
		return m.UnmarshalJSON([]byte(strings.TrimSpace(text)))
	}
	var pairs Strings
	if err := pairs.UnmarshalJSON(b); err != nil {
		return err
	}
	for _, pair := range pairs {
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("a pair has no %q; write key=value", "=")
		}
		out[k] = v
	}
	*m = out
	return nil
}

// Time is a point in time, in RFC 3339 with nanoseconds, UTC; the zero time is
// answered as "".
type Time struct{ time.Time }

// MarshalJSON writes the time, or "".
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte(`""`), nil
	}
	return strconv.AppendQuote(nil, t.UTC().Format(time.RFC3339Nano)), nil
}

// UnmarshalJSON accepts RFC 3339, "" and null.
func (t *Time) UnmarshalJSON(b []byte) error {
	text, err := scalar(b, "a time")
	if err != nil || text == "" {
		*t = Time{}
		return err
	}
	parsed, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return errors.New("it is not a time in RFC 3339, for example 2030-01-31T12:00:00Z")
	}
	t.Time = parsed
	return nil
}

// Redacted is what a secret prints as.
const Redacted = "[redacted]"

// Secret is a string that prints a redaction in every format and log. Only its
// JSON form, which is what the wire carries, and Reveal hold the value.
type Secret string

// Reveal returns the value.
func (s Secret) Reveal() string { return string(s) }

// String returns the redaction.
func (s Secret) String() string { return Redacted }

// GoString returns the redaction.
func (s Secret) GoString() string { return Redacted }

// Format writes the redaction whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue returns the redaction.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// Object is the text of one JSON object, kept as the client wrote it so that
// no number or order is lost. It prints a redaction.
type Object []byte

// MarshalJSON writes the object, null when there is none.
func (o Object) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("null"), nil
	}
	return o, nil
}

// UnmarshalJSON accepts an object or null.
func (o *Object) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	switch {
	case string(b) == "null":
		*o = nil
	case len(b) > 0 && b[0] == '{':
		*o = bytes.Clone(b)
	default:
		return fmt.Errorf("it must be a JSON object")
	}
	return nil
}

// String returns the redaction.
func (o Object) String() string { return Redacted }

// GoString returns the redaction.
func (o Object) GoString() string { return Redacted }

// Format writes the redaction whatever the verb.
func (o Object) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue returns the redaction.
func (o Object) LogValue() slog.Value { return slog.StringValue(Redacted) }

// scalar returns the text of a JSON string, number or boolean, "" for null.
func scalar(b []byte, want string) (string, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || string(b) == "null" {
		return "", nil
	}
	switch b[0] {
	case '"':
		text, err := jsontext.AppendUnquote(nil, b)
		return string(text), err
	case '{', '[':
		return "", fmt.Errorf("it must be %s", want)
	}
	return string(b), nil
}
