package app

import (
	"context"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

// firstStart is what a server that initializes itself is given.
type firstStart struct {
	rootToken wire.Secret // "" has one made
	kv        bool        // secret/ is mounted, kv version 2
}

// FirstStart initializes the server without anybody's shares, as development
// servers and `coffer quickstart` do, and unseals it. A crash in between leaves a
// server that can be started so again, with the same token.
func (s *Server) FirstStart(ctx context.Context, rootToken wire.Secret, kv bool) error {
	s.first = &firstStart{rootToken, kv}
	defer func() { s.first = nil }()
	made, err := s.node.Init(ctx, node.InitRequest{})
	if err != nil {
		return err
	}
	s.rootToken = wire.Secret(made.RootToken)
	return nil
}

// RootToken is the root token of a server that FirstStart initialized, else "".
func (s *Server) RootToken() wire.Secret { return s.rootToken }

// newRootToken makes a root token in the open server.
func (s *Server) newRootToken(ctx context.Context) (string, error) {
	r := token.Request{
		Policies: []string{token.RootPolicy}, Initial: true, DisplayName: "root", Path: "auth/token/root",
	}
	open := s.getRunning()
	if s.first != nil {
		r.ID = s.first.rootToken.Reveal()
		if s.first.kv {
			err := open.Mounts.Ensure(ctx, mount.Request{
				Path: "secret", Type: "kv", Class: engine.Secret, Description: "key/value secret storage",
				Options: map[string]string{"version": "2"},
			})
			if err != nil {
				return "", err
			}
		}
	}
	secret, _, err := open.Tokens.Create(ctx, nil, r)
	return secret.Reveal(), err
}
