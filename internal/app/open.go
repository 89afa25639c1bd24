package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/pebble"
)

// openStorage opens the storage engine.
func (s *Server) openStorage(ctx context.Context) (storage.Engine, error) {
	if s.shared() {
		kind := builtin.StorageKind(s.cfg.Storage.Kind)
		if kind == nil {
			return nil, fmt.Errorf("this binary has no storage engine %q", s.cfg.Storage.Kind)
		}
		e, err := kind.Open(ctx, s.cfg.Storage.Settings, s.log)
		if err != nil {
			return nil, fmt.Errorf("storage %q: %w", s.cfg.Storage.Kind, err)
		}
		return e, nil
	}
	e, err := pebble.Open(ctx, pebble.Options{Path: s.store, CacheSize: s.cfg.CacheSize, Logger: s.log})
	if err != nil {
		return nil, err // and no engine, not even one that is nil
	}
	return e, nil
}

// openSeals opens the configured seals. One that cannot be opened is kept with
// its error: another one may open the server.
func (s *Server) openSeals(ctx context.Context) []node.Configured {
	var out []node.Configured
	for _, c := range s.cfg.Seals {
		n := node.Configured{Named: seal.Named{Name: c.Name, Kind: c.Kind}, Disabled: c.Disabled}
		for _, kind := range builtin.Seals {
			if kind.Name != c.Kind {
				continue
			}
			n.Seal, n.Err = kind.Open(ctx, c.Settings(s.dataDir))
			if errors.Is(n.Err, seal.ErrShares) {
				n.Seal, n.Err = nil, nil
			}
			if n.Err != nil {
				n.Seal = nil
				s.log.Error("a seal cannot be opened", "seal", c.Name, "kind", c.Kind, "error", n.Err)
			}
		}
		out = append(out, n)
	}
	return out
}

// originOf returns the name of the audit log in dir, and makes one the first
// time. It stands in every checkpoint and never changes.
func originOf(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return kept(filepath.Join(dir, "origin"), func() string { return "coffer-" + random(6) + "/audit" })
}

// nodeID returns the node's name: the configured one, or one that is made the
// first time and kept in the data directory.
func nodeID(configured, dir string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	return kept(filepath.Join(dir, "node-id"), func() string {
		host, _ := os.Hostname()
		host, _, _ = strings.Cut(host, ".")
		host = strings.Trim(strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '-'
		}, host), "-")
		return strings.TrimLeft(host[:min(len(host), 40)]+"-"+random(4), "-")
	})
}

// auditNode names the node by which the newest checkpoint of its log is kept in
// storage. An embedded store has one node whatever it is called, so that a log
// cannot be emptied unseen by giving the node another name.
func (s *Server) auditNode() string {
	if !s.shared() {
		return "embedded"
	}
	return s.nodeID
}

// kept returns the line in a file, which is made when it is not there.
func kept(file string, made func() string) (string, error) {
	text, err := os.ReadFile(file)
	if line := strings.TrimSpace(string(text)); err == nil && line != "" {
		return line, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	line := made()
	return line, os.WriteFile(file, []byte(line+"\n"), 0o600)
}

func random(bytes int) string {
	id := make([]byte, bytes)
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}
