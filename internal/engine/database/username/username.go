// Package username makes names of accounts by templates in Vault's language: Go's
// text/template with a few functions. What comes of a template is checked, so that a
// name has only characters that need no quoting anywhere.
package username

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/fault"
)

// Limits of templates and of what they make.
const (
	MaxTemplate = 2048
	maxOutput   = 4096
	maxRandom   = 512
)

// For is whom a name is for.
type For struct {
	DisplayName string
	RoleName    string
}

// Template makes names.
type Template struct {
	t   *template.Template
	max int
}

var allowed = regexp.MustCompile(`^[A-Za-z0-9_.@~=:+-]+$`)

// other is what becomes a dash in what callers and roles are called.
var other = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

// Parse reads a template whose names have at most max bytes. It is tried, so that
// it does not fail when somebody waits for a credential.
func Parse(text string, max int) (*Template, error) {
	if len(text) > MaxTemplate {
		return nil, fault.New(fault.Invalid, "username_template has more than %d bytes", MaxTemplate)
	}
	t, err := template.New("username").Option("missingkey=error").Funcs(functions).Parse(text)
	if err == nil && t.Tree != nil {
		err = checkTree(t.Root)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "username_template cannot be read: %v", err)
	}
	out := &Template{t, max}
	one, err := out.Make(For{"token-display", "role"})
	if err != nil {
		return nil, err
	}
	if two, _ := out.Make(For{"token-display", "role"}); one == two {
		return nil, fault.New(fault.Invalid, "username_template makes the same name twice: it needs something random, such as {{random 20}}")
	}
	return out, nil
}

// Make makes a name.
func (t *Template) Make(who For) (string, error) {
	who.DisplayName, who.RoleName = other.ReplaceAllString(who.DisplayName, "-"), other.ReplaceAllString(who.RoleName, "-")
	var b strings.Builder
	if err := t.t.Execute(&limited{&b, maxOutput}, who); err != nil {
		return "", fault.New(fault.Invalid, "username_template fails: %v", err)
	}
	name := strings.TrimSpace(b.String())
	switch {
	case name == "":
		return "", fault.New(fault.Invalid, "username_template makes an empty name")
	case len(name) > t.max:
		return "", fault.New(fault.Invalid, "username_template makes a name of %d bytes; the database takes %d: end it in | truncate %d", len(name), t.max, t.max)
	case !allowed.MatchString(name):
		return "", fault.New(fault.Invalid, "username_template makes a name with other characters than letters, digits and _ . @ ~ = : + -")
	}
	return name, nil
}

// limited refuses more than so many bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, fmt.Errorf("it makes more than %d bytes", maxOutput)
	}
	return l.w.Write(b)
}

var functions = template.FuncMap{
	"random": func(n int) (string, error) {
		if n < 1 || n > maxRandom {
			return "", fmt.Errorf("random makes 1 to %d characters", maxRandom)
		}
		return random(n), nil
	},
	"truncate": func(n int, s string) (string, error) {
		if n < 1 {
			return "", errors.New("truncate needs a length above 0")
		}
		return s[:min(n, len(s))], nil
	},
	"truncate_sha256": func(n int, s string) (string, error) {
		const digits = 8
		if n <= digits {
			return "", fmt.Errorf("truncate_sha256 needs a length above %d", digits)
		}
		if len(s) <= n {
			return s, nil
		}
		sum := sha256.Sum256([]byte(s[n-digits:]))
		return s[:n-digits] + hex.EncodeToString(sum[:])[:digits], nil
	},
	"uppercase":        strings.ToUpper,
	"lowercase":        strings.ToLower,
	"replace":          func(find, with, s string) (string, error) { return bounded(strings.ReplaceAll(s, find, with)) },
	"sha256":           func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) },
	"base64":           func(s string) (string, error) { return bounded(base64.StdEncoding.EncodeToString([]byte(s))) },
	"unix_time":        func() string { return strconv.FormatInt(time.Now().Unix(), 10) },
	"unix_time_millis": func() string { return strconv.FormatInt(time.Now().UnixMilli(), 10) },
	"timestamp":        func(layout string) string { return time.Now().UTC().Format(layout) },
	"uuid":             func() string { return uuid.NewString() },
	// Go's own, bounded, or not for names.
	"printf": func(format string, args ...any) (string, error) {
		if wide.MatchString(format) {
			return "", errors.New("printf takes widths of up to three digits")
		}
		return bounded(fmt.Sprintf(format, args...))
	},
	"print":    func(args ...any) (string, error) { return bounded(fmt.Sprint(args...)) },
	"println":  none,
	"html":     none,
	"js":       none,
	"urlquery": none,
	"call":     none,
}

// wide is a width by which printf would make much of little.
var wide = regexp.MustCompile(`%[^%a-zA-Z]*(\d{4}|\*)`)

// bounded keeps a template from growing a text from step to step.
func bounded(s string) (string, error) {
	if len(s) > maxOutput {
		return "", fmt.Errorf("it makes more than %d bytes", maxOutput)
	}
	return s, nil
}

func none(...any) (string, error) { return "", errors.New("there is no such function here") }

// checkTree refuses what could go on for ever.
func checkTree(list *parse.ListNode) error {
	if list == nil {
		return nil
	}
	for _, n := range list.Nodes {
		var err error
		switch n := n.(type) {
		case *parse.RangeNode, *parse.TemplateNode:
			err = errors.New("it may hold neither range nor template")
		case *parse.IfNode:
			err = errors.Join(checkTree(n.List), checkTree(n.ElseList))
		case *parse.WithNode:
			err = errors.Join(checkTree(n.List), checkTree(n.ElseList))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// random returns n letters and digits, each as likely as any other.
func random(n int) string {
	out := make([]byte, 0, n)
	var b [64]byte
	for len(out) < n {
		_, _ = rand.Read(b[:]) // never fails
		for _, c := range b {
			if c := int(c) & 63; c < len(letters) && len(out) < n {
				out = append(out, letters[c])
			}
		}
	}
	return string(out)
}
