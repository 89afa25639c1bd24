package policy

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/hashicorp/hcl/hcl/printer"

	"github.com/cofferhq/coffer/internal/fault"
)

// Format returns a policy's text in the usual shape, in its own language:
// comments and order stay. It refuses text that Parse refuses.
func Format(text string) (string, error) {
	before, err := Parse("text", text)
	if err != nil {
		return "", err
	}
	print := formatHCL
	if isJSON(text) {
		print = formatJSON
	}
	out, err := print([]byte(text))
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "the policy cannot be formatted: %v", err)
	}
	// The printer is a library's: what it prints must mean what was written.
	after, err := Parse("text", out)
	if err != nil || !sameRules(before.Rules, after.Rules) {
		return "", fault.New(fault.Invalid, "the policy cannot be formatted without changing its meaning; a comment inside a list is the usual cause")
	}
	return out, nil
}

func formatHCL(text []byte) (string, error) {
	for range 4 {
		// The printer may need a second pass to settle the space around comments.
		out, err := printer.Format(text)
		if err != nil {
			return "", err
		}
		if bytes.Equal(out, text) {
			break
		}
		text = out
	}
	return string(text), nil
}

func formatJSON(text []byte) (string, error) {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(text), "", "  "); err != nil {
		return "", err
	}
	out.WriteByte('\n')
	return out.String(), nil
}

// sameRules compares rules but for the lines they stand on.
func sameRules(a, b []Rule) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Line, y.Line, x.when, y.when = 0, 0, nil, nil
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}
