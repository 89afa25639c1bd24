package main

import (
	"fmt"
	"strings"

	"github.com/cofferhq/coffer/internal/auth/tokens"
	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/cli"
	"github.com/cofferhq/coffer/internal/docgen"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/cubbyhole"
	"github.com/cofferhq/coffer/internal/engine/identities"
	"github.com/cofferhq/coffer/internal/sys"
)

// table is a route table and the page it is documented on.
type table struct {
	file string // without .md
	docgen.Mount
}

// tables lists every route table: Coffer's own mounts, and each kind where its
// name says.
func tables() []table {
	all := []table{
		own("sys", "sys/", "System", sys.Kind(nil).Spec()),
		own("token", "auth/token/", "Tokens", tokens.Kind(tokens.Options{}).Spec()),
		own("cubbyhole", "cubbyhole/", "Cubbyhole", cubbyhole.Kind.Spec()),
		own("identity", "identity/", "Identity", identities.Kind(identities.Stores{}).Spec()),
	}
	for _, spec := range builtin.Engines {
		name, title, path := spec.Name, spec.Name, spec.Name+"/"
		if spec.Version != "" {
			name, title = name+"-v"+spec.Version, title+" version "+spec.Version
			path = name + "/"
		}
		if spec.Class == engine.Auth {
			path = "auth/" + path
		}
		all = append(all, own(name, path, title, spec))
	}
	return all
}

func own(file, path, title string, spec *engine.Spec) table {
	return table{file, docgen.Mount{Path: path, Kind: title, Doc: spec.Doc, Routes: spec.Routes}}
}

// pages returns the generated files by name.
func pages() (map[string][]byte, error) {
	files := map[string][]byte{}
	var mounts []docgen.Mount
	var index strings.Builder
	index.WriteString("# Reference of the HTTP API\n\nGenerated from the route tables by `make docs`; the same as OpenAPI: [openapi.json](openapi.json).\n" +
		"A running server describes what is mounted in it at `sys/internal/specs/openapi`.\n\n| page | paths | |\n|---|---|---|\n")
	for _, t := range tables() {
		mounts = append(mounts, t.Mount)
		files[t.file+".md"] = []byte(docgen.Markdown(t.Mount))
		fmt.Fprintf(&index, "| [%s](%s.md) | `/v1/%s` | %s |\n", t.Kind, t.file, t.Path, t.Doc)
	}
	index.WriteString("\nCommands are in the [reference of the command line](cli.md).\n")
	files["cli.md"] = cli.Reference()
	files["README.md"] = []byte(index.String())
	var err error
	files["openapi.json"], err = docgen.OpenAPI(sys.APILevel, mounts)
	return files, err
}
