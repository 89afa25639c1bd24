// Package apptest runs whole servers inside tests: real storage, audit log, TLS
// and sockets, in a directory that ends with the test.
package apptest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferhq/coffer/internal/app"
	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/sys"
)

// Server is a server that runs until its test ends.
type Server struct {
	*app.Server
	Client
	Dir    string // storage "pebble" { path }
	CAFile string
	Log    *Log // what the server logged, at every level
	text   string
}

// Start runs an initialized and unsealed server with secret/ mounted. more is
// HCL put behind a configuration that has storage and one TLS listener.
func Start(t testing.TB, more string) *Server {
	t.Helper()
	s := Uninitialized(t, more)
	root, err := s.Initialize(t.Context(), app.FirstStart{KV: true})
	if err != nil {
		t.Fatalf("initialize: %v", err)
	}
	s.Root = root.Reveal()
	return s
}

// Uninitialized runs a server that was never initialized.
func Uninitialized(t testing.TB, more string) *Server {
	t.Helper()
	s := Prepared(t, more)
	s.Run(t)
	return s
}

// Add puts more HCL behind the configuration, for the next Run.
func (s *Server) Add(more string) { s.text += more }

// Prepared returns a server that was not started yet.
func Prepared(t testing.TB, more string) *Server {
	t.Helper()
	s := &Server{Dir: filepath.Join(t.TempDir(), "data"), Log: &Log{}}
	s.text = fmt.Sprintf("storage \"pebble\" {\n  path = %q\n}\nlistener \"tcp\" {\n  address = \"127.0.0.1:0\"\n}\ndisable_mlock = true\nlog_level = \"trace\"\n%s\n", s.Dir, more)
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Run starts the server again after Stop, in the same directory and on another
// port.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	cfg := s.Config(t)
	var err error
	if s.Server, err = app.Start(context.WithoutCancel(t.Context()), cfg, sys.Version{Coffer: "test"}, s.Log.Logger()); err != nil {
		t.Fatalf("start: %v", err)
	}
	var url string
	url, s.CAFile = s.Address()
	s.Reach(url, Trusting(t, s.CAFile))
}

// Config returns the configuration that the server is started with.
func (s *Server) Config(t testing.TB) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "coffer.hcl")
	if err := os.WriteFile(file, []byte(s.text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Source{Paths: []string{file}, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatalf("configuration: %v", err)
	}
	return cfg
}

// Stop closes the server, if it runs.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.Server == nil {
		return
	}
	s.HTTP().CloseIdleConnections()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	s.Server = nil
}
