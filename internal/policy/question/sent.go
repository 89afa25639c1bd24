package question

import (
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
)

// Operations are the words of the audit log for what was sent, and the methods.
var operations = map[string]string{
	"read": "GET", "list": "LIST", "create": "POST", "update": "POST", "delete": "DELETE", "patch": "PATCH",
}

// Sent returns what policies were asked about a request that the audit log has, by its
// operation and wire path. asked is false for requests that every token may make.
// Errors are fault.Invalid: an operation or a mount that is not known.
func (m *Mounts) Sent(operation, path string) (ask policy.Request, asked bool, err error) {
	method, ok := operations[operation]
	if !ok {
		return ask, false, fault.New(fault.Invalid, "the operation %q is not known", operation)
	}
	i := m.find(path)
	if i < 0 {
		return ask, false, fault.New(fault.Invalid, "nothing is known to be mounted at %s", path)
	}
	need, _ := policy.CapabilityOf(operation)
	if method == "LIST" && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	if m.list[i].Routes == nil {
		return policy.Request{Path: path, Need: need}, true, nil
	}
	spec, vars, _ := m.tables[i].Find(method, strings.TrimPrefix(path, m.list[i].Path))
	if spec == nil {
		return policy.Request{Path: path, Need: need}, true, nil
	}
	if spec.Public || spec.AnyToken {
		return ask, false, nil
	}
	if spec.Need != 0 {
		need = spec.Need
	}
	ask, err = m.request(i, spec, vars, need, path)
	return ask, true, err
}
