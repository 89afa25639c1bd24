package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile is the largest configuration file, in bytes.
const maxFile = 4 << 20

// Source says where a configuration comes from.
type Source struct {
	Paths  []string            // files, and directories whose .hcl and .json files are read in order of name
	Dev    *Dev                // set for a development server
	Getenv func(string) string // nil is os.Getenv
}

// Load reads, merges and checks a configuration. Of files that set the same
// thing the later one counts; listeners and seals add up. Its error is an *Error.
func Load(from Source) (*Config, error) {
	if from.Getenv == nil {
		from.Getenv = os.Getenv
	}
	c := Default()
	var problems []Problem
	if from.Dev != nil {
		problems = append(problems, c.develop(*from.Dev, from.Getenv)...)
	}
	files, missing := expand(from.Paths)
	problems = append(problems, missing...)
	for _, path := range files {
		content, err := readFile(path)
		if err != nil {
			problems = append(problems, Problem{File: path, Message: err.Error()})
			continue
		}
		r := &reader{file: path, env: from.Getenv}
		r.read(content, c.settings())
		problems = append(problems, r.problems...)
		c.Notices = append(c.Notices, r.notices...)
	}
	problems = append(problems, c.environment(from.Getenv)...)
	if len(problems) == 0 {
		problems = c.complete(from)
	}
	if len(problems) > 0 {
		return nil, &Error{problems}
	}
	return c, nil
}

// readFile reads a file that is no larger than a configuration can be.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("the file is larger than %d bytes; is it a configuration?", maxFile)
	}
	return os.ReadFile(path)
}

// expand replaces directories by the files in them.
func expand(paths []string) (files []string, problems []Problem) {
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			problems = append(problems, Problem{File: path, Message: "the file is not there"})
			continue
		case err != nil:
			problems = append(problems, Problem{File: path, Message: err.Error()})
			continue
		case !info.IsDir():
			files = append(files, path)
			continue
		}
		entries, err := os.ReadDir(path) // sorted by name
		if err != nil {
			problems = append(problems, Problem{File: path, Message: err.Error()})
		}
		before := len(files)
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if !e.IsDir() && (ext == ".hcl" || ext == ".json") && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
		if len(files) == before {
			problems = append(problems, Problem{File: path, Message: "the directory holds no .hcl and no .json file"})
		}
	}
	return files, problems
}

// environment applies the variables that override files: COFFER_X, and VAULT_X
// where that is unset.
func (c *Config) environment(getenv func(string) string) []Problem {
	var problems []Problem
	for _, o := range []key{
		{"API_ADDR", apiAddress(&c.APIAddr)},
		{"NODE_ID", nodeID(&c.NodeID)},
		{"CLUSTER_ADDR", apiAddress(&c.ClusterAddr)},
		{"LOG_LEVEL", level(&c.LogLevel)},
		{"LOG_FORMAT", oneOf(&c.LogFormat, "standard", "json")},
		{"UI", flag(&c.UI)},
		{"DISABLE_MLOCK", flag(&c.DisableMlock)},
	} {
		name, text := lookup(getenv, o.name)
		if text == "" {
			continue
		}
		if err := o.set(value{plain: text, env: getenv}); err != nil {
			problems = append(problems, Problem{File: "environment", Field: name, Message: err.Error()})
		}
	}
	return problems
}

// lookup returns the value of COFFER_name or VAULT_name, and which it was.
func lookup(getenv func(string) string, name string) (variable, text string) {
	for _, prefix := range []string{"COFFER_", "VAULT_"} {
		if text := getenv(prefix + name); text != "" {
			return prefix + name, text
		}
	}
	return "COFFER_" + name, ""
}

func exists(dir string) error {
	_, err := os.Stat(dir)
	return err
}

// complete fills in what no file says and checks what several say together.
func (c *Config) complete(from Source) []Problem {
	where := "configuration"
	if len(from.Paths) == 1 {
		where = from.Paths[0]
	}
	var problems []Problem
	add := func(field, format string, args ...any) {
		problems = append(problems, Problem{File: where, Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if c.Storage.Kind == "" {
		add("storage", `it is missing; write storage "pebble" { path = "/var/lib/coffer" }, or start with -dev`)
	}
	switch {
	case c.DataDir != "":
	case len(c.Storage.Settings) > 0 || slices.Contains(remoteKinds, c.Storage.Kind):
		add("data_dir", `it is missing; this node's audit log and its name lie in it: write data_dir = "/var/lib/coffer"`)
	default:
		c.DataDir = c.Storage.Path
	}
	if len(c.Listeners) == 0 {
		c.Listeners = append(c.Listeners, defaultListener("tcp"))
	}
	if len(c.Seals) == 0 {
		c.Seals = append(c.Seals, Seal{Kind: "keyfile", Name: "keyfile"})
	}
	names := map[string]bool{}
	for _, s := range c.Seals {
		if names[s.Name] {
			add("seal", "two seals are named %q; give one of them another name", s.Name)
		}
		names[s.Name] = true
	}
	if !slices.ContainsFunc(c.Seals, func(s Seal) bool { return !s.Disabled }) {
		add("seal", "all seals are disabled; one of them must stay")
	}
	addresses := map[string]bool{}
	for _, l := range c.Listeners {
		if addresses[l.Address] && !strings.HasSuffix(l.Address, ":0") {
			add("listener", "two listeners have the address %s", l.Address)
		}
		addresses[l.Address] = true
		if l.MaxRequestSize > 0 && l.MaxRequestSize < c.MaxPayloadSize {
			c.Notices = append(c.Notices, fmt.Sprintf("listener %s: max_request_size is below max_payload_size and counts first", l.Address))
		}
	}
	if c.DefaultLeaseTTL > c.MaxLeaseTTL {
		add("default_lease_ttl", "%v is longer than max_lease_ttl, %v", c.DefaultLeaseTTL, c.MaxLeaseTTL)
	}
	return problems
}
