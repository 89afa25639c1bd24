package client

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Seconds is a duration that stands on the wire as a number of seconds.
type Seconds time.Duration

// Duration returns s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// String returns the duration as Go writes it.
func (s Seconds) String() string { return time.Duration(s).String() }

// MarshalJSON writes seconds, rounded up so that some time never becomes none.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendInt(nil, wholeSeconds(time.Duration(s)), 10), nil
}

// UnmarshalJSON reads a number of seconds, or a duration as Go writes it.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	text := string(bytes.Trim(b, `"`))
	if text == "" || text == "null" {
		*s = 0
		return nil
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < math.MaxInt64/float64(time.Second) {
		*s = Seconds(f * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("it is not a duration")
	}
	*s = Seconds(d)
	return nil
}

func wholeSeconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return n
}

// Time is a point in time of which the wire's "" and null are the zero value.
type Time struct{ time.Time }

// MarshalJSON writes RFC 3339, or "" for the zero time.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte(`""`), nil
	}
	return strconv.AppendQuote(nil, t.UTC().Format(time.RFC3339Nano)), nil
}

// UnmarshalJSON reads RFC 3339, "" or null.
func (t *Time) UnmarshalJSON(b []byte) error {
	text := string(bytes.Trim(b, `"`))
	if text == "" || text == "null" {
		*t = Time{}
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return fmt.Errorf("it is not a time in RFC 3339")
	}
	t.Time = at
	return nil
}
