package plugin

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
)

// Values are what stands for placeholders: {{name}}.
type Values map[string]string

// Dialect is how texts are quoted in a language of statements.
type Dialect struct {
	// Backslash says that a backslash escapes in quoted texts.
	Backslash bool
	// Backtick says that names may stand in backticks, and Dollar that texts may
	// stand between $$ or $tag$.
	Backtick, Dollar bool
}

// Limits of statements.
const (
	MaxStatements = 64       // of one kind, after they are split
	MaxStatement  = 16 << 10 // bytes of all of one kind
)

var (
	placeholder = regexp.MustCompile(`^\{\{ *([A-Za-z_]+) *\}\}`)
	// plain is what may stand outside of quotes: a name or a number, nothing else.
	plain     = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	dollarTag = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z0-9_]*)?\$`)
)

// Split splits texts into single statements at the semicolons that are in no quotes
// and no comment.
func (d Dialect) Split(texts []string) ([]string, error) {
	var out []string
	size := 0
	for _, text := range texts {
		if size += len(text); size > MaxStatement {
			return nil, fault.New(fault.Invalid, "the statements have more than %d bytes", MaxStatement)
		}
		start := 0
		if err := d.walk(text, func(at int, where state) int {
			if where == bare && text[at] == ';' {
				out = appendStatement(out, text[start:at])
				start = at + 1
			}
			return 0
		}); err != nil {
			return nil, err
		}
		out = appendStatement(out, text[start:])
	}
	if len(out) > MaxStatements {
		return nil, fault.New(fault.Invalid, "there are %d statements; at most %d are accepted", len(out), MaxStatements)
	}
	return out, nil
}

func appendStatement(out []string, text string) []string {
	if text = strings.TrimSpace(text); text != "" {
		out = append(out, text)
	}
	return out
}

// Render puts values in the place of placeholders, each escaped for the quotes that
// it stands in. Outside of quotes only letters, digits and _ may come; a placeholder
// that has no value is an error, so that it never reaches the server.
func (d Dialect) Render(statement string, values Values) (string, error) {
	var b strings.Builder
	start := 0
	var bad error
	err := d.walk(statement, func(at int, where state) int {
		m := placeholder.FindStringSubmatch(statement[at:])
		if m == nil || bad != nil {
			return 0
		}
		value, ok := values[m[1]]
		if !ok {
			bad = fault.New(fault.Invalid, "a statement has the placeholder {{%s}}, which has no value here", m[1])
			return 0
		}
		text, err := d.escape(value, where)
		if err != nil {
			bad = fmt.Errorf("placeholder {{%s}}: %w", m[1], err)
			return 0
		}
		b.WriteString(statement[start:at])
		b.WriteString(text)
		start = at + len(m[0])
		return len(m[0])
	})
	if err == nil {
		err = bad
	}
	b.WriteString(statement[start:])
	return b.String(), err
}

// placeholders returns the names of those in statements.
func placeholders(statements []string) map[string]bool {
	found := map[string]bool{}
	for _, s := range statements {
		for i := range s {
			if m := placeholder.FindStringSubmatch(s[i:]); m != nil {
				found[m[1]] = true
			}
		}
	}
	return found
}

// state is what a place in a statement is in.
type state byte

const (
	bare    state = 0
	comment state = '-'
	dollar  state = '$'
	single  state = '\''
	double  state = '"'
	tick    state = '`'
)

func (d Dialect) escape(value string, where state) (string, error) {
	if strings.ContainsRune(value, 0) {
		return "", fault.New(fault.Invalid, "the value holds a NUL")
	}
	switch where {
	case single, double, tick:
		if d.Backslash && where != tick {
			value = strings.ReplaceAll(value, `\`, `\\`)
		}
		q := string(where)
		return strings.ReplaceAll(value, q, q+q), nil
	case comment:
		return "", nil
	case dollar:
		// Inside is a program whose quotes are not known.
		if strings.ContainsAny(value, "$'\"\\") {
			return "", fault.New(fault.Invalid, "the value holds $, a quote or a backslash, and stands between dollar quotes")
		}
		return value, nil
	}
	if !plain.MatchString(value) {
		return "", fault.New(fault.Invalid, "the value holds other characters than letters, digits and _ and must stand in quotes")
	}
	return value, nil
}

// walk calls fn with each place of a statement that is not itself a quote or inside
// an escape. What fn returns is skipped.
func (d Dialect) walk(s string, fn func(at int, where state) int) error {
	where, tag := bare, ""
	for i := 0; i < len(s); {
		c := s[i]
		switch where {
		case bare:
			switch {
			case c == '\'' || c == '"' || c == '`' && d.Backtick:
				where = state(c)
				i++
				continue
			case strings.HasPrefix(s[i:], "--"):
				where = comment
			case strings.HasPrefix(s[i:], "/*"):
				end := strings.Index(s[i:], "*/")
				if end < 0 {
					return fault.New(fault.Invalid, "a statement has a comment without an end")
				}
				i += end + 2
				continue
			case c == '$' && d.Dollar:
				if tag = dollarTag.FindString(s[i:]); tag != "" {
					where = dollar
					i += len(tag)
					continue
				}
			}
		case comment:
			if c == '\n' {
				where = bare
			}
		case dollar:
			if strings.HasPrefix(s[i:], tag) {
				where = bare
				i += len(tag)
				continue
			}
		default:
			switch {
			case c == '\\' && d.Backslash && where != tick && i+1 < len(s):
				i += 2
				continue
			case c == byte(where) && i+1 < len(s) && s[i+1] == c:
				i += 2
				continue
			case c == byte(where):
				where = bare
				i++
				continue
			}
		}
		i += max(1, fn(i, where))
	}
	if where != bare && where != comment {
		return fault.New(fault.Invalid, "a statement has a quote without an end")
	}
	return nil
}
