package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// values reads the arguments behind a path, as Vault's command line has them:
//
//	name=text        a string
//	name=@file       a file's content
//	name=-           standard input
//	@file.json or -  a whole JSON object, from a file or standard input
//
// literal lists the names whose values stood on the command line.
func (s *shell) values(args []string) (object map[string]json.RawMessage, literal []string, err error) {
	object = map[string]json.RawMessage{}
	many := map[string][]json.RawMessage{}
	for _, arg := range args {
		name, text, pair := strings.Cut(arg, "=")
		if !pair {
			if err := s.wholeObject(object, arg); err != nil {
				return nil, nil, err
			}
			continue
		}
		if name == "" {
			return nil, nil, usage("%q has no name in front of the =", arg)
		}
		value, typed, err := s.text(text)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		if !utf8.ValidString(value) {
			return nil, nil, fmt.Errorf("%s: it is not text; encode it first, for example with base64", name)
		}
		if typed && text != "" {
			literal = append(literal, name)
		}
		many[name] = append(many[name], jsonString(value))
	}
	for name, list := range many {
		if len(list) == 1 {
			object[name] = list[0]
			continue
		}
		object[name] = append(append([]byte{'['}, bytes.Join(asBytes(list), []byte{','})...), ']')
	}
	slices.Sort(literal)
	return object, slices.Compact(literal), nil
}

func asBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// wholeObject adds the members of a JSON object in a file or on standard input.
func (s *shell) wholeObject(object map[string]json.RawMessage, arg string) error {
	if arg != "-" && !strings.HasPrefix(arg, "@") {
		return usage("%q is neither name=value, @file nor -", arg)
	}
	text, _, err := s.text(arg)
	if err != nil {
		return err
	}
	var members map[string]json.RawMessage
	// The strict reader refuses what a lenient one would lose: a name twice.
	if !jsontext.Value(text).IsValid() || json.Unmarshal([]byte(text), &members) != nil {
		return fmt.Errorf("what %s holds is no JSON object", place(arg))
	}
	for name, value := range members {
		object[name] = value
	}
	return nil
}

func place(arg string) string {
	if arg == "-" {
		return "standard input"
	}
	return strings.TrimPrefix(arg, "@")
}

// text returns the value that an argument stands for, and whether it stood on
// the command line itself. A backslash in front keeps an @ or a - as they are.
func (s *shell) text(arg string) (value string, literal bool, err error) {
	switch {
	case arg == "-":
		all, err := io.ReadAll(s.Stdin)
		return string(all), false, err
	case strings.HasPrefix(arg, "@"):
		all, err := os.ReadFile(arg[1:])
		return string(all), false, err
	case strings.HasPrefix(arg, `\@`), arg == `\-`:
		return arg[1:], true, nil
	}
	return arg, true, nil
}

// warnLiteral says that secrets were given on the command line.
func (s *shell) warnLiteral(names []string) {
	if len(names) == 0 {
		return
	}
	s.warn("the value of %s stood on the command line, which the shell keeps in its history and other users see in the process list; use %s=@file, %s=- or a JSON object on standard input",
		strings.Join(names, ", "), names[0], names[0])
}

// warnLineBreaks says which of the names have a value of one line with its break,
// as editors and echo write files: hardly anybody wants it in a password.
func (s *shell) warnLineBreaks(object map[string]json.RawMessage, names []string) {
	for _, name := range names {
		text := scalar(object[name])
		if len(text) > 1 && strings.IndexByte(text, '\n') == len(text)-1 && object[name][0] == '"' {
			s.warn("the value of %s ends with a line break, which is now a part of it; printf %%s and echo -n write none", name)
		}
	}
}

// secretNames returns those of names that say they are of secrets.
func secretNames(names []string) []string {
	var out []string
	for _, name := range names {
		lower := strings.ToLower(name)
		if slices.ContainsFunc([]string{"password", "passwd", "secret", "token", "private", "credential", "pin", "key"}, func(word string) bool {
			return lower == word || strings.HasSuffix(lower, "_"+word) || strings.HasSuffix(lower, word) && len(word) > 5
		}) {
			out = append(out, name)
		}
	}
	return out
}

func jsonString(text string) json.RawMessage {
	out, _ := json.Marshal(text)
	return out
}

// pairs are name=value flags, of which each may be given several times.
type pairs map[string]string

// String returns nothing, which is what is there without the flag.
func (p *pairs) String() string { return "" }

// Type returns what help calls the value.
func (p *pairs) Type() string { return "name=value" }

// Set takes one in.
func (p *pairs) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("it is not name=value")
	}
	if *p == nil {
		*p = pairs{}
	}
	(*p)[name] = value
	return nil
}
