package audit

import "time"

// Type says what an entry records.
type Type string

// The types of entries.
const (
	// Intent is written before a request may change anything. An intent
	// without an outcome means the server died in between.
	Intent Type = "intent"
	// Outcome is written when a request was decided and done.
	Outcome Type = "outcome"
	// Event is written for the life of the server and of this log.
	Event Type = "event"
)

// Names of events that the log itself writes. The server adds its own:
// started, stopped, init, unseal, seal, checkpoint-key, device-enabled, …
const (
	EventRecovered = "log-recovered" // an unacknowledged tail was cut off at start
	EventProblem   = "log-problem"   // writing failed, or a file was touched by others
	EventRepaired  = "log-repaired"  // writing works again
)

// Entry is one line of the log. Its fields are everything a line can hold;
// none of them takes a value of a secret, a token or a password, and none may
// be added that could.
//
// Strings are written as UTF-8; bytes that are not are written as U+FFFD.
type Entry struct {
	Seq        uint64    `json:"seq"`                   // 1 for the first entry; set by Append
	Time       time.Time `json:"time"`                  // UTC; set by Append when zero
	Type       Type      `json:"type"`                  // intent, outcome or event
	Event      string    `json:"event,omitempty"`       // name of the event, with type event
	Request    Request   `json:"request,omitzero"`      // what was asked
	Principal  Principal `json:"principal,omitzero"`    // who asked
	Decision   *Decision `json:"decision,omitempty"`    // what the policies said; absent where none was asked
	Subject    Subject   `json:"subject,omitzero"`      // the secret version it was about
	Status     int       `json:"status,omitempty"`      // HTTP status of the answer
	Error      string    `json:"error,omitempty"`       // the message the client got, or what happened; never a cause
	DurationUS int64     `json:"duration_us,omitempty"` // how long it took, in microseconds
	StaleMS    int64     `json:"stale_ms,omitempty"`    // how old at most what was answered was, in milliseconds; set when the storage engine was away
}

// Request is what was asked, without any value that was sent.
type Request struct {
	ID            string   `json:"id,omitempty"`             // names the request in answers and logs
	Operation     string   `json:"operation,omitempty"`      // read, list, create, update, patch, delete
	Path          string   `json:"path,omitempty"`           // as asked, with the mount
	MountPoint    string   `json:"mount_point,omitempty"`    // such as "secret/"
	MountType     string   `json:"mount_type,omitempty"`     // such as "kv"
	MountAccessor string   `json:"mount_accessor,omitempty"` // names the mount over renames
	Namespace     string   `json:"namespace,omitempty"`      // path of the namespace; empty for the root
	RemoteAddress string   `json:"remote_address,omitempty"` // IP address of the client
	RemotePort    int      `json:"remote_port,omitempty"`
	TraceParent   string   `json:"traceparent,omitempty"`    // W3C trace context
	TraceID       string   `json:"trace_id,omitempty"`       // the trace's id, 32 hex digits
	CorrelationID string   `json:"correlation_id,omitempty"` // chosen by the client
	WrapTTL       int64    `json:"wrap_ttl,omitempty"`       // seconds; set when the answer is wrapped
	Fields        []string `json:"fields,omitempty"`         // names of the parameters given, never their values
	// Headers are those that an operator chose, by their names in lower case. Ones
	// that carry tokens and the like cannot be chosen; values are hashed unless the
	// operator said that they need not be.
	Headers map[string][]string `json:"headers,omitempty"`
}

// Principal is who asked.
type Principal struct {
	DisplayName string    `json:"display_name,omitempty"`
	Accessor    string    `json:"accessor,omitempty"` // the token's accessor, which cannot be used as the token
	EntityID    string    `json:"entity_id,omitempty"`
	Policies    []string  `json:"policies,omitempty"`          // the token's own
	Identity    []string  `json:"identity_policies,omitempty"` // those that its entity adds
	Namespace   string    `json:"namespace,omitempty"`         // path of the token's own namespace, from which its policies name paths; empty for the root
	TokenType   string    `json:"token_type,omitempty"`        // service or batch
	Issued      time.Time `json:"issued,omitzero"`             // when the token was made; UTC, second precision
}

// Decision is what the policies said.
type Decision struct {
	Allowed bool   `json:"allowed"`
	Policy  string `json:"policy,omitempty"`  // the policy that decided
	Rule    string `json:"rule,omitempty"`    // the path rule in it
	Missing string `json:"missing,omitempty"` // with a denial: the capability that was missing
}

// Subject is the secret version that an entry is about.
type Subject struct {
	Path        string `json:"path,omitempty"`
	Version     int    `json:"version,omitempty"`
	Label       string `json:"label,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"` // keyed: says "the same value again" to the server only
}
