// Package directory reads what a team keeps in files: policies, their tests, the
// mounts and the roles that a server should have.
//
//	policies/NAME.hcl        a policy, named by its file
//	policies/NAME_test.hcl   tests, see package trial
//	mounts.hcl               mount "secret/" { type = "kv" … }, auth "approle/" { … }
//	paths/auth/approle/role/ci.hcl
//	                         what is written to auth/approle/role/ci
//
// Every file may be JSON instead. A directory without policies/ is one of policies
// itself. Files with other endings are nobody's. It reads, and asks no server.
package directory

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/policy/question"
	"github.com/cofferhq/coffer/internal/policy/trial"
)

// MaxFiles is how many files a directory may have that mean something.
const MaxFiles = 20000

// Directory is what its files say.
type Directory struct {
	Root     string
	Policies []Policy            // by name
	Mounts   []question.Declared // by path
	Bodies   []Body              // by path
	Tests    []*trial.File       // by file
}

// Policy is a policy, and the file it is in.
type Policy struct {
	*policy.Policy
	File string
}

// Body is what is written to a path, a JSON object.
type Body struct {
	Path string // below /v1/: "auth/approle/role/ci"
	File string
	JSON []byte
}

// Load reads a directory. Errors are of the file system, or fault.Invalid and begin
// with the file.
func Load(root string) (*Directory, error) {
	d := &Directory{Root: root}
	policies := filepath.Join(root, "policies")
	info, err := os.Stat(policies)
	switch {
	case err == nil && info.IsDir():
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return d, d.flat(root)
	default:
		return nil, err
	}
	if err := errors.Join(d.readPolicies(policies), d.readTests(root)); err != nil {
		return nil, err
	}
	if err := errors.Join(d.readMounts(root), d.readBodies(filepath.Join(root, "paths"))); err != nil {
		return nil, err
	}
	return d, nil
}

// flat reads a directory of policies; that of a whole one has its mounts beside it.
func (d *Directory) flat(root string) error {
	if err := d.readPolicies(root); err != nil {
		return err
	}
	absolute, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if filepath.Base(absolute) == "policies" {
		return d.readMounts(filepath.Join(root, ".."))
	}
	return d.readMounts(root)
}

// Of says which directory the policies of a file of tests are in, and the file's name
// as Load gives it.
func Of(file string) (root, name string) { return filepath.Dir(file), filepath.Clean(file) }

// stem returns a file's name without the ending of the languages; false for others.
func stem(name string) (string, bool) {
	for _, ending := range []string{".hcl", ".json"} {
		if base, ok := strings.CutSuffix(name, ending); ok && !strings.HasPrefix(filepath.Base(name), ".") {
			return base, true
		}
	}
	return "", false
}

// IsTest reports whether a file is one of tests, by its name.
func IsTest(name string) bool {
	base, ok := stem(filepath.Base(name))
	return ok && strings.HasSuffix(base, "_test")
}

func (d *Directory) readPolicies(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > MaxFiles {
		return fault.New(fault.Invalid, "%s has more than %d files", dir, MaxFiles)
	}
	from := map[string]string{}
	for _, e := range entries {
		name, ok := stem(e.Name())
		file := filepath.Join(dir, e.Name())
		switch {
		case !ok || e.IsDir() || name == "mounts":
			continue
		case strings.HasSuffix(name, "_test"):
			if err := d.readTest(file); err != nil {
				return err
			}
			continue
		}
		text, err := read(file)
		if err != nil {
			return err
		}
		if name, err = policystore.CleanName(name); err != nil || name == "root" {
			return fault.New(fault.Invalid, "%s: its name is no name for a policy", file)
		}
		if other := from[name]; other != "" {
			return fault.New(fault.Invalid, "%s: the policy %s is in %s, too", file, name, other)
		}
		from[name] = file
		p, err := policy.Parse(name, text)
		if err != nil {
			message := strings.TrimPrefix(fault.From(err).Message, "policy "+name+": ")
			return policy.Placed(file, fault.New(fault.Invalid, "%s", message))
		}
		d.Policies = append(d.Policies, Policy{p, file})
	}
	slices.SortFunc(d.Policies, func(a, b Policy) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// readTests reads the tests that lie beside policies/.
func (d *Directory) readTests(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || !IsTest(e.Name()) {
			continue
		}
		if err := d.readTest(filepath.Join(root, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) readTest(file string) error {
	text, err := read(file)
	if err != nil {
		return err
	}
	f, err := trial.Parse(file, text)
	if err != nil {
		return err
	}
	d.Tests = append(d.Tests, f)
	return nil
}

func (d *Directory) readMounts(dir string) error {
	for _, name := range []string{"mounts.hcl", "mounts.json"} {
		file := filepath.Join(dir, name)
		text, err := read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		root, err := policy.ReadDocument(text)
		if err != nil {
			return policy.Placed(file, err)
		}
		for _, f := range root.Fields {
			if f.Name != "mount" && f.Name != "auth" {
				return policy.Placed(file, policy.At(f.Line, "%q is not a key of a file of mounts; there are mount and auth", f.Name))
			}
			if err := question.ReadDeclared(f, d.addMount); err != nil {
				return policy.Placed(file, err)
			}
		}
	}
	slices.SortFunc(d.Mounts, func(a, b question.Declared) int { return cmp.Compare(a.Path, b.Path) })
	return nil
}

func (d *Directory) addMount(m question.Declared) error {
	if slices.ContainsFunc(d.Mounts, func(o question.Declared) bool { return o.Path == m.Path }) {
		return policy.At(m.Line, "the mount %s is declared twice", m.Path)
	}
	d.Mounts = append(d.Mounts, m)
	return nil
}

func (d *Directory) readBodies(dir string) error {
	from := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && file == dir {
			return fs.SkipAll
		}
		if err != nil || e.IsDir() {
			return err
		}
		base, ok := stem(file)
		if !ok {
			return nil
		}
		below, err := filepath.Rel(dir, base)
		if err != nil {
			return err
		}
		at := filepath.ToSlash(below)
		if other := from[at]; other != "" {
			return fault.New(fault.Invalid, "%s: %s is in %s, too", file, at, other)
		}
		from[at] = file
		body, err := readBody(file)
		if err != nil {
			return err
		}
		if len(d.Bodies) == MaxFiles {
			return fault.New(fault.Invalid, "%s has more than %d files", dir, MaxFiles)
		}
		d.Bodies = append(d.Bodies, Body{Path: at, File: file, JSON: body})
		return nil
	})
	slices.SortFunc(d.Bodies, func(a, b Body) int { return cmp.Compare(a.Path, b.Path) })
	return err
}

func readBody(file string) ([]byte, error) {
	text, err := read(file)
	if err != nil {
		return nil, err
	}
	root, err := policy.ReadDocument(text)
	if err == nil && root.Kind != policy.ObjectNode {
		err = policy.At(1, "what is written to a path is an object, not %s", root.Kind)
	}
	var body []byte
	if err == nil {
		body, err = root.JSON()
	}
	if err != nil {
		return nil, policy.Placed(file, err)
	}
	return body, nil
}

// read reads a file of at most policy.MaxSource bytes.
func read(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > policy.MaxSource {
		return "", fault.New(fault.Invalid, "%s is no file, or has more than the %d bytes allowed", file, policy.MaxSource)
	}
	text, err := os.ReadFile(file)
	return string(text), err
}

// Parsed returns the policies.
func (d *Directory) Parsed() []*policy.Policy {
	out := make([]*policy.Policy, len(d.Policies))
	for i, p := range d.Policies {
		out[i] = p.Policy
	}
	return out
}

// File returns the file that a policy is in, "" when none is.
func (d *Directory) File(name string) string {
	for _, p := range d.Policies {
		if p.Name == name {
			return path.Clean(filepath.ToSlash(p.File))
		}
	}
	return ""
}
