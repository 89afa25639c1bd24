package question

import (
	"strings"

	"github.com/cofferhq/coffer/internal/policy"
)

// Declared is a mount as a file says it:
//
//	mount "secret/" { type = "kv"  options = { version = "2" }  description = "…" }
//	auth "approle/" { type = "approle"  config = { default_lease_ttl = "1h" } }
type Declared struct {
	Path        string // with its slash, "auth/" included
	Type        string
	Description string
	Options     map[string]string
	Config      map[string]string // default_lease_ttl, max_lease_ttl, …
	Line        int
}

// Version is the value of the option that chooses among versions of a kind.
func (d *Declared) Version() string { return d.Options["version"] }

// ReadDeclared calls add with every mount that a field of a document declares.
func ReadDeclared(f policy.Field, add func(Declared) error) error {
	missing := "a mount has a path: mount \"secret/\" { type = \"kv\" }"
	return f.Each(1, missing, func(f policy.Field) error {
		d, err := declared(f)
		if err != nil {
			return err
		}
		return add(d)
	})
}

func declared(f policy.Field) (Declared, error) {
	d := Declared{Line: f.Line}
	version := ""
	err := f.Block(1, nil, func(key policy.Field) (err error) {
		switch key.Name {
		case "type":
			d.Type, err = key.Word()
		case "version":
			version, err = key.Scalar()
		case "options":
			d.Options, err = key.StringMap()
		case "description":
			d.Description, err = key.Word()
		case "config":
			d.Config, err = key.StringMap()
		default:
			err = policy.At(key.Line, "%q is not a key of a mount; there are type, version, options, description and config", key.Name)
		}
		return err
	})
	if err != nil {
		return d, err
	}
	path := strings.Trim(f.Labels[0], "/")
	switch {
	case path == "":
		return d, policy.At(f.Line, "a mount has a path: secret/")
	case d.Type == "":
		return d, policy.At(f.Line, "the mount %s has no type, such as kv", path)
	case f.Name == "mount" && (path == "auth" || path == "sys"):
		return d, policy.At(f.Line, "nothing can be mounted at %s/", path)
	}
	if d.Path = path + "/"; f.Name == "auth" && !strings.HasPrefix(d.Path, "auth/") {
		d.Path = "auth/" + d.Path
	}
	if version != "" {
		if d.Options == nil {
			d.Options = map[string]string{}
		}
		d.Options["version"] = version
	}
	return d, nil
}
