// Command generate writes the reference of the HTTP API from the route tables,
// a page for each engine, method and for sys, an index and the OpenAPI document,
// and that of the command line from its commands.
//
//	go run -tags pkcs11 ./internal/docgen/generate docs/reference
//
// It writes only the files it generates; others beside them stay.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// write writes every page below dir.
func write(dir string) error {
	files, err := pages()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
