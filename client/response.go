package client

import (
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Response is an answer. Most answers are an envelope, of which Data is the
// part that the route defines; those that are not have only Body.
type Response struct {
	Status int
	Header http.Header

	RequestID     string
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
	Data          Raw // nil where there is none
	WrapInfo      *WrapInfo
	Auth          *Auth
	Warnings      []string
	MountType     string

	Body Raw // the whole answer as it came; empty after 204

	bare   bool // not an envelope
	errors []string
}

// Decode reads Data, or Body where the answer is no envelope, into a value; see
// Raw.Decode.
func (r *Response) Decode(into any) error {
	if r.bare {
		return r.Body.Decode(into)
	}
	return r.Data.Decode(into)
}

// Auth is a token that was issued or renewed.
type Auth struct {
	Token            Secret            `json:"client_token"`
	Accessor         string            `json:"accessor"`
	Policies         []string          `json:"policies"`
	TokenPolicies    []string          `json:"token_policies"`
	IdentityPolicies []string          `json:"identity_policies"`
	Metadata         map[string]string `json:"metadata"`
	TTL              Seconds           `json:"lease_duration"` // 0 for a token that never ends
	Renewable        bool              `json:"renewable"`
	EntityID         string            `json:"entity_id"`
	Type             string            `json:"token_type"` // service or batch
	Orphan           bool              `json:"orphan"`
	NumUses          int               `json:"num_uses"` // 0 is any number
}

// WrapInfo is an answer that waits behind a token of one use.
type WrapInfo struct {
	Token           Secret    `json:"token"`
	Accessor        string    `json:"accessor"`
	TTL             Seconds   `json:"ttl"`
	CreationTime    time.Time `json:"creation_time"`
	CreationPath    string    `json:"creation_path"`
	WrappedAccessor string    `json:"wrapped_accessor"` // of the token that is wrapped, if one is
}

// envelope is what answers and errors have at their top level.
type envelope struct {
	RequestID     string          `json:"request_id"`
	LeaseID       string          `json:"lease_id"`
	LeaseDuration Seconds         `json:"lease_duration"`
	Renewable     bool            `json:"renewable"`
	Data          *jsontext.Value `json:"data"`
	WrapInfo      *WrapInfo       `json:"wrap_info"`
	Auth          *Auth           `json:"auth"`
	Warnings      []string        `json:"warnings"`
	MountType     string          `json:"mount_type"`
	Errors        []string        `json:"errors"`
}

var errMalformed = errors.New("the answer is not what a server of this API sends; is the address right?")

// read takes the body in. A successful answer that says it is JSON must be: one
// value, valid UTF-8, no name twice. Whatever a proxy puts into an error's body
// is left alone.
func (r *Response) read() error {
	text := jsontext.Value(r.Body)
	r.bare = true
	if len(r.Body) == 0 || !isJSON(r.Header) {
		return nil
	}
	if !text.IsValid() {
		if r.Status >= 400 {
			return nil
		}
		return errMalformed
	}
	if text.Kind() != '{' {
		return nil
	}
	var e envelope
	if err := json.Unmarshal(r.Body, &e, jsonv1.DefaultOptionsV1(), json.MatchCaseInsensitiveNames(false)); err != nil {
		// Some bare answer may have one of the names with another meaning.
		if r.Status >= 400 || !r.claims() {
			return nil
		}
		return errMalformed
	}
	r.RequestID, r.errors = e.RequestID, e.Errors
	if e.RequestID == "" || r.Status >= 400 && e.Data == nil {
		return nil
	}
	r.bare = false
	r.LeaseID, r.LeaseDuration, r.Renewable = e.LeaseID, e.LeaseDuration.Duration(), e.Renewable
	r.WrapInfo, r.Auth, r.Warnings, r.MountType = e.WrapInfo, e.Auth, e.Warnings, e.MountType
	if e.Data != nil && e.Data.Kind() != 'n' {
		r.Data = Raw(*e.Data)
	}
	return nil
}

// claims reports whether the body has an envelope's mark.
func (r *Response) claims() bool {
	var mark struct {
		RequestID *jsontext.Value `json:"request_id"`
		Data      *jsontext.Value `json:"data"`
	}
	err := json.Unmarshal(r.Body, &mark)
	return err == nil && mark.RequestID != nil
}
