package app

import (
	"context"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

// FirstStart is what a server that initializes itself is given.
type FirstStart struct {
	RootToken wire.Secret                  // "" has one made
	KV        bool                         // secret/ is mounted, kv version 2
	Keep      func(root wire.Secret) error // stores the root token before it counts; may be nil
}

// Initialize initializes the server without anybody's shares, as development
// servers and `coffer quickstart` do, and unseals it. After a crash in between
// the server is not initialized, and what Keep stored is replaced.
func (s *Server) Initialize(ctx context.Context, first FirstStart) (root wire.Secret, err error) {
	s.first.Store(&first)
	defer s.first.Store(nil)
	made, err := s.node.Init(ctx, node.InitRequest{})
	if err != nil {
		return "", err
	}
	return wire.Secret(made.RootToken), nil
}

// newRootToken makes a root token in the open server.
func (s *Server) newRootToken(ctx context.Context) (string, error) {
	open, first := s.getRunning(), s.first.Load()
	if first == nil {
		first = &FirstStart{}
	}
	if first.KV {
		err := open.Mounts.Ensure(ctx, mount.Request{
			Path: "secret", Type: "kv", Class: engine.Secret, Description: "key/value secret storage",
			Options: map[string]string{"version": "2"},
		})
		if err != nil {
			return "", err
		}
	}
	secret, _, err := open.Tokens.Create(ctx, nil, token.Request{
		ID: first.RootToken.Reveal(), Policies: []string{token.RootPolicy}, Initial: true,
		DisplayName: "root", Path: "auth/token/root",
	})
	if err == nil && first.Keep != nil {
		err = first.Keep(secret)
	}
	return secret.Reveal(), err
}
