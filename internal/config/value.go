package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/token"

	"github.com/cofferhq/coffer/internal/wire"
)

// value is what stands behind a key: a scalar as text, a list or an object.
type value struct {
	node  ast.Node // nil when plain holds the value
	plain string   // text that comes from elsewhere than a file
	env   func(string) string
}

// text returns a scalar as text.
func (v value) text() (string, error) {
	if v.node == nil {
		return v.plain, nil
	}
	literal, ok := v.node.(*ast.LiteralType)
	if !ok {
		return "", fmt.Errorf("it must be one value, not a list or a block")
	}
	switch literal.Token.Type {
	case token.STRING, token.HEREDOC:
		text, ok := literal.Token.Value().(string)
		if !ok || strings.ContainsRune(text, 0) {
			return "", fmt.Errorf("it must be a string without NUL bytes")
		}
		return text, nil
	case token.NUMBER, token.FLOAT, token.BOOL:
		return literal.Token.Text, nil
	}
	return "", fmt.Errorf("it must be a string, a number or a boolean")
}

// list returns a list of scalars, or the parts of a comma-separated string.
func (v value) list() ([]string, error) {
	items, ok := v.node.(*ast.ListType)
	if !ok {
		text, err := v.text()
		if err != nil {
			return nil, fmt.Errorf("it must be a list of strings")
		}
		var parts []string
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				parts = append(parts, part)
			}
		}
		return parts, nil
	}
	var texts []string
	for _, item := range items.List {
		text, err := value{node: item}.text()
		if err != nil {
			return nil, fmt.Errorf("it must be a list of strings")
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// The functions below make a key's setter out of the place its value goes to.

func text(to *string) func(value) error {
	return func(v value) (err error) { *to, err = v.text(); return err }
}

func oneOf(to *string, words ...string) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		for _, word := range words {
			if strings.EqualFold(text, word) {
				*to = word
				return nil
			}
		}
		return fmt.Errorf("%q is not known; %s", text, suggest(text, words))
	}
}

func flag(to *bool) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		if *to, err = strconv.ParseBool(strings.ToLower(text)); err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		return nil
	}
}

func count(to *int, least, most int) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", text, least, most)
		}
		*to = n
		return nil
	}
}

func duration(to *time.Duration, least time.Duration) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		d, err := wire.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		if d < least {
			return fmt.Errorf("%q is too short; at least %v is accepted", text, least)
		}
		*to = d
		return nil
	}
}

// size accepts bytes, or a number with a unit: "2MiB", "64kb". Units are powers
// of 1024, as Vault reads them.
func size(to *int64, least int64) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		n, err := parseSize(text)
		if err != nil {
			return err
		}
		if n < least {
			return fmt.Errorf("%q is too small; at least %d bytes are accepted", text, least)
		}
		*to = n
		return nil
	}
}

func parseSize(text string) (int64, error) {
	bad := fmt.Errorf("%q is not a size; write for example 1048576, 512KiB or 2MiB", text)
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(text[len(number):]))
	unit = strings.TrimSuffix(strings.Replace(unit, "ib", "b", 1), "b")
	shift, ok := map[string]int{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit]
	if !ok {
		return 0, bad
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, bad
	}
	return n << shift, nil
}

// secret accepts a value, "env://NAME" or "file://PATH", so that it need not
// stand in the file. Errors never repeat it.
func secret(to *wire.Secret) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(text, "env://"); ok {
			if text = v.env(name); text == "" {
				return fmt.Errorf("the environment has no variable %s", name)
			}
		} else if path, ok := strings.CutPrefix(text, "file://"); ok {
			if err := readable(path); err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = strings.TrimRight(string(content), "\r\n")
		}
		*to = wire.Secret(text)
		return nil
	}
}

// file accepts the path of a file that is there and can be read.
func file(to *string) func(value) error {
	return func(v value) error {
		path, err := v.text()
		if err != nil {
			return err
		}
		if path == "" {
			return fmt.Errorf("it is empty; give the path of a file")
		}
		if err := readable(path); err != nil {
			return err
		}
		*to = path
		return nil
	}
}

// readable looks before it opens: a pipe or a device could keep the reader for
// ever.
func readable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// directory accepts the path of a directory, which need not be there yet.
func directory(to *string) func(value) error {
	return func(v value) error {
		path, err := v.text()
		if err != nil {
			return err
		}
		if path == "" {
			return fmt.Errorf("it is empty; give the path of a directory")
		}
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return fmt.Errorf("%s is a file; give the path of a directory", path)
		}
		*to = path
		return nil
	}
}

// address accepts host:port, a host, or :port.
func address(to *string) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		*to, err = parseAddress(text)
		return err
	}
}

func parseAddress(text string) (string, error) {
	bad := fmt.Errorf("%q is not an address; write host:port, for example 127.0.0.1:8200 or [::1]:8200", text)
	if text == "" || strings.Contains(text, "/") {
		return "", bad
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		if host, port, err = net.SplitHostPort(net.JoinHostPort(strings.Trim(text, "[]"), "8200")); err != nil {
			return "", bad
		}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", fmt.Errorf("%q has no port from 0 to 65535", text)
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ": \t\r\n") {
		return "", bad
	}
	return net.JoinHostPort(host, port), nil
}
