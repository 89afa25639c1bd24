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
	path := filepath.Join(s.dataDir, "store")
	e, err := pebble.Open(ctx, pebble.Options{Path: path, CacheSize: s.cfg.CacheSize, Logger: s.log})
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
	file := filepath.Join(dir, "origin")
	text, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(text)) != "" {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var id [6]byte
	_, _ = rand.Read(id[:])
	origin := "coffer-" + hex.EncodeToString(id[:]) + "/audit"
	if err := os.WriteFile(file, []byte(origin+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the log's name: %w", err)
	}
	return origin, nil
}
