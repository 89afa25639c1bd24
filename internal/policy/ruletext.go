package policy

import (
	"fmt"

	"github.com/cofferhq/coffer/internal/fault"
)

// RuleText writes a rule that grants capabilities on exactly one path, as HCL. It
// refuses paths that a rule cannot mean exactly, and what grants nothing:
// fault.Invalid.
func RuleText(path string, granted Capability) (string, error) {
	if !writable(path) || granted == 0 || granted&Deny != 0 {
		return "", fault.New(fault.Invalid, "no rule means exactly %s on %q", granted, path)
	}
	return fmt.Sprintf("path %s {\n  capabilities = [%s]\n}\n", quote(path), quoteAll(granted.Words())), nil
}
