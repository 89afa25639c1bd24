package client

import (
	"bytes"
	std "encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Redacted is what a Secret and a Raw print as.
const Redacted = "[redacted]"

// Secret is a string that nobody should see: a token, a password, a key share.
// Every way to print, log or marshal it gives a redaction; only the bodies of
// this package's requests carry the value. (Package fmt cannot call methods of
// unexported fields: a struct that keeps one there must format itself.)
type Secret string

// Reveal returns the value.
func (s Secret) Reveal() string { return string(s) }

// String returns the redaction.
func (s Secret) String() string { return Redacted }

// GoString returns the redaction.
func (s Secret) GoString() string { return Redacted }

// Format writes the redaction whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// LogValue returns the redaction.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns the redaction, which is also the JSON form.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// UnmarshalText keeps the text.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = Secret(b)
	return nil
}

// Raw is JSON as it came from the server, or any other body, which may hold
// secrets. It prints, logs and marshals as a redaction; convert it to []byte to
// use it as it is.
type Raw []byte

// Reveal returns the text.
func (r Raw) Reveal() []byte { return r }

// String returns the redaction.
func (r Raw) String() string { return Redacted }

// GoString returns the redaction.
func (r Raw) GoString() string { return Redacted }

// Format writes the redaction whatever the verb.
func (r Raw) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// LogValue returns the redaction.
func (r Raw) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON returns the redaction.
func (r Raw) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// UnmarshalJSON keeps the text.
func (r *Raw) UnmarshalJSON(b []byte) error {
	*r = bytes.Clone(b)
	return nil
}

// Decode reads the JSON into a value as encoding/json does, except that numbers
// that go into an any become a json.Number, so that none loses digits. Errors
// name places and types, never values.
func (r Raw) Decode(into any) error {
	if len(r) == 0 || string(r) == "null" {
		return errors.New("the answer holds no data")
	}
	dec := std.NewDecoder(bytes.NewReader(r))
	dec.UseNumber()
	err := dec.Decode(into)
	var wrong *std.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("the answer has in %q what does not fit into %v", wrong.Field, wrong.Type)
	case errors.As(err, &wrong):
		return fmt.Errorf("the answer does not fit into %v", wrong.Type)
	}
	return fmt.Errorf("the answer does not fit into %T", into)
}

// revealing writes the values behind Secret and Raw: in what is sent to the
// server, and nowhere else. It also writes the numbers that Decode makes.
var revealing = json.JoinMarshalers(
	json.MarshalToFunc(func(enc *jsontext.Encoder, s Secret) error {
		return enc.WriteToken(jsontext.String(string(s)))
	}),
	json.MarshalToFunc(func(enc *jsontext.Encoder, r Raw) error {
		if len(r) == 0 {
			return enc.WriteToken(jsontext.Null)
		}
		return enc.WriteValue(jsontext.Value(r))
	}),
	json.MarshalToFunc(func(enc *jsontext.Encoder, n std.Number) error {
		if n == "" {
			n = "0"
		}
		return enc.WriteValue(jsontext.Value(n))
	}),
)

// marshal makes a request's body. Bytes are a body already.
func marshal(body any) ([]byte, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case []byte:
		return b, nil
	case Raw:
		return b, nil
	case std.RawMessage:
		return b, nil
	}
	text, err := json.Marshal(body, jsonv1.DefaultOptionsV1(), json.WithMarshalers(revealing))
	if err != nil {
		// The error may hold the text around the place, and that a secret.
		return nil, fmt.Errorf("a %T cannot be written as JSON", body)
	}
	return text, nil
}
