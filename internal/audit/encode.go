package audit

import (
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// linePrefix opens every entry line, so that its number is found without
// parsing the rest.
const linePrefix = `{"seq":`

// appendBody appends everything of the entry's line that follows its number,
// without the newline. The number is known only when the line is written.
func appendBody(b []byte, e *Entry) []byte {
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","type":`...)
	b = appendString(b, string(e.Type))
	b = appendText(b, "event", e.Event)
	b = appendRequest(b, &e.Request)
	b = appendPrincipal(b, &e.Principal)
	if d := e.Decision; d != nil {
		b = append(b, `,"decision":{"allowed":`...)
		b = strconv.AppendBool(b, d.Allowed)
		b = appendText(b, "policy", d.Policy)
		b = appendText(b, "rule", d.Rule)
		b = appendText(b, "missing", d.Missing)
		b = append(b, '}')
	}
	b = appendSubject(b, &e.Subject)
	b = appendNumber(b, "status", int64(e.Status))
	b = appendText(b, "error", e.Error)
	b = appendNumber(b, "duration_us", e.DurationUS)
	b = appendNumber(b, "stale_ms", e.StaleMS)
	return append(b, '}')
}

func appendRequest(b []byte, r *Request) []byte {
	b, start := openObject(b, "request")
	b = appendText(b, "id", r.ID)
	b = appendText(b, "operation", r.Operation)
	b = appendText(b, "path", r.Path)
	b = appendText(b, "mount_point", r.MountPoint)
	b = appendText(b, "mount_type", r.MountType)
	b = appendText(b, "mount_accessor", r.MountAccessor)
	b = appendText(b, "namespace", r.Namespace)
	b = appendText(b, "remote_address", r.RemoteAddress)
	b = appendNumber(b, "remote_port", int64(r.RemotePort))
	b = appendText(b, "traceparent", r.TraceParent)
	b = appendText(b, "trace_id", r.TraceID)
	b = appendText(b, "correlation_id", r.CorrelationID)
	b = appendNumber(b, "wrap_ttl", r.WrapTTL)
	b = appendTexts(b, "fields", r.Fields)
	b = appendHeaders(b, r.Headers)
	return closeObject(b, start)
}

func appendHeaders(b []byte, headers map[string][]string) []byte {
	if len(headers) == 0 {
		return b
	}
	b = append(appendName(b, "headers"), '{')
	for i, name := range slices.Sorted(maps.Keys(headers)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, name), ':', '[')
		for i, v := range headers[name] {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, v)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendPrincipal(b []byte, p *Principal) []byte {
	b, start := openObject(b, "principal")
	b = appendText(b, "display_name", p.DisplayName)
	b = appendText(b, "accessor", p.Accessor)
	b = appendText(b, "entity_id", p.EntityID)
	b = appendTexts(b, "policies", p.Policies)
	b = appendTexts(b, "identity_policies", p.Identity)
	b = appendText(b, "namespace", p.Namespace)
	b = appendText(b, "token_type", p.TokenType)
	if !p.Issued.IsZero() {
		b = append(b, `,"issued":"`...)
		b = p.Issued.UTC().AppendFormat(b, time.RFC3339)
		b = append(b, '"')
	}
	return closeObject(b, start)
}

func appendSubject(b []byte, s *Subject) []byte {
	b, start := openObject(b, "subject")
	b = appendText(b, "path", s.Path)
	b = appendNumber(b, "version", int64(s.Version))
	b = appendText(b, "label", s.Label)
	b = appendText(b, "fingerprint", s.Fingerprint)
	return closeObject(b, start)
}

// openObject appends a member that is an object and returns where its first
// member begins. Members are written with a leading comma, which closeObject
// removes from the first.
func openObject(b []byte, name string) ([]byte, int) {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":{`...)
	return b, len(b)
}

// closeObject ends the object whose members begin at start, or takes the
// whole member back when it has none.
func closeObject(b []byte, start int) []byte {
	if len(b) == start {
		i := start - len(`":{`) - 1
		for b[i] != '"' {
			i--
		}
		return b[:i-1]
	}
	copy(b[start:], b[start+1:])
	b[len(b)-1] = '}'
	return b
}

func appendText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(appendName(b, name), value)
}

func appendNumber(b []byte, name string, value int64) []byte {
	if value == 0 {
		return b
	}
	return strconv.AppendInt(appendName(b, name), value, 10)
}

func appendTexts(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(appendName(b, name), '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']')
}

func appendName(b []byte, name string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	return append(b, `":`...)
}

// appendString appends s as a JSON string (RFC 8259 section 7). Everything
// that could end a line or confuse a terminal is escaped.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	plain := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			broken := r == utf8.RuneError && n == 1
			if !broken && r != '\u2028' && r != '\u2029' && (r < 0x80 || r > 0x9f) {
				i += n
				continue
			}
			b = append(b, s[plain:i]...)
			b = append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
			i += n
			plain = i
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[plain:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		plain = i
	}
	b = append(b, s[plain:]...)
	return append(b, '"')
}
