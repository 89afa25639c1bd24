package gateway

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const jsonType = "application/json"

// answer makes the answer of what the request's life came to, and returns the
// problem that ended it, if any.
func (t *turn) answer(err error) (Answer, *fault.Error) {
	if err == nil {
		answer, err := t.succeeded()
		if err == nil {
			return answer, nil
		}
		problem := fault.Wrap(fault.Internal, err, "the answer could not be written")
		return failed(t, problem), problem
	}
	problem := fault.From(err)
	answer := failed(t, problem)
	if problem.Kind == fault.Method {
		answer.Allow = t.allow
	}
	if problem == t.Problem && t.Status != 0 {
		answer.Status = t.Status
	}
	return answer, problem
}

// failed answers a fault in Vault's shape: a list of texts, with the request's
// id beside it, by which a denial can be explained and a log line found.
func failed(t *turn, problem *fault.Error) Answer {
	b := append(make([]byte, 0, 256), `{"errors":[`...)
	if problem.Message != "" {
		b = quoted(b, problem.Message)
	}
	b = append(b, `],"request_id":`...)
	b = append(quoted(b, t.ID), '}', '\n')
	return Answer{Status: problem.Kind.Status(), ContentType: jsonType, Body: b, RetryAfter: problem.RetryAfter}
}

// succeeded answers what the handler returned.
func (t *turn) succeeded() (Answer, error) {
	status := t.notes.Status
	if status == 0 {
		status = 200
	}
	switch out := t.output.(type) {
	case route.Raw:
		return Answer{Status: status, ContentType: out.ContentType, Body: out.Body, MaxAge: t.notes.MaxAge}, nil
	case route.Stream:
		return Answer{Status: status, ContentType: out.ContentType}, nil
	case route.Empty:
		if t.notes.Lease != nil {
			return t.envelope(status, nil)
		}
		if len(t.notes.Warnings)+len(t.warnings) == 0 {
			if t.notes.Status == 0 {
				status = 204
			}
			return Answer{Status: status}, nil
		}
		return t.envelope(status, nil)
	case *token.Issued, *waiting:
		return t.envelope(status, nil)
	case *token.WrapInfo:
		return t.envelope(status, nil)
	}
	if status == 204 {
		return Answer{Status: status}, nil
	}
	data, err := json.Marshal(t.output, json.Deterministic(true))
	if err != nil {
		return Answer{}, err
	}
	if _, bare := t.output.(interface{ IsBare() }); bare {
		return Answer{Status: status, ContentType: jsonType, Body: append(data, '\n'), MaxAge: t.notes.MaxAge}, nil
	}
	return t.envelope(status, data)
}

// envelope writes Vault's envelope around data, nil for none.
func (t *turn) envelope(status int, data []byte) (Answer, error) {
	b := append(make([]byte, 0, len(data)+512), `{"request_id":`...)
	b = quoted(b, t.ID)
	b = append(b, `,"lease_id":`...)
	if l := t.notes.Lease; l != nil {
		b = quoted(b, t.inner+l.ID)
		b = strconv.AppendBool(append(b, `,"renewable":`...), l.Renewable)
		b = append(b, `,"lease_duration":`...)
		b = strconv.AppendInt(b, seconds(l.TTL), 10)
	} else {
		b = append(b, `"","renewable":false,"lease_duration":`...)
		b = strconv.AppendInt(b, int64(t.notes.LeaseDuration/time.Second), 10)
	}
	b = append(b, `,"data":`...)
	if data == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, data...)
	}
	var err error
	b = append(b, `,"wrap_info":`...)
	if w, ok := t.output.(*token.WrapInfo); ok {
		b, err = appendJSON(b, w)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"warnings":`...)
	if warnings := append(t.warnings, t.notes.Warnings...); len(warnings) > 0 && err == nil {
		b, err = appendJSON(b, warnings)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"auth":`...)
	if issued, ok := t.output.(*token.Issued); ok && err == nil {
		b, err = appendJSON(b, block(issued))
	} else if wait, ok := t.output.(*waiting); ok && err == nil {
		b, err = appendJSON(b, authBlock{MFARequirement: wait.requirement()})
	} else {
		b = append(b, "null"...)
	}
	if t.mount != nil {
		b = append(b, `,"mount_type":`...)
		b = quoted(b, t.mount.Entry.Type)
	}
	if _, doubled := t.output.(interface{ IsDoubled() }); doubled && err == nil {
		b, err = beside(b, data)
	}
	return Answer{Status: status, ContentType: jsonType, Body: append(b, '}', '\n')}, err
}

// seconds is a lifetime in whole ones, rounded: what was counted a moment ago lost
// a little since.
func seconds(d time.Duration) int64 { return int64(d.Round(time.Second) / time.Second) }

// members are the names of the envelope.
var members = []string{"request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth", "mount_type"}

// beside appends the members of the object data, but for those that the
// envelope has itself: a client asked about a path may have called it "data".
func beside(b, data []byte) ([]byte, error) {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	if _, err := d.ReadToken(); err != nil {
		return b, err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return b, err
		}
		text := name.String() // before the next read takes its place
		value, err := d.ReadValue()
		if err != nil {
			return b, err
		}
		if !slices.Contains(members, text) {
			b = append(append(quoted(append(b, ','), text), ':'), value...)
		}
	}
	return b, nil
}

func appendJSON(b []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v, json.Deterministic(true))
	return append(b, text...), err
}

func quoted(b []byte, s string) []byte {
	// The error says only that invalid UTF-8 was replaced, which is wanted here.
	b, _ = jsontext.AppendQuote(b, s)
	return b
}
