package database

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/engine/database/plugin"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// servers are the pools of connections that are open on this node.
type servers struct {
	mu   sync.Mutex
	open map[string]opened // by the connection's name
}

type opened struct {
	generation string
	server     plugin.Server
}

// closeAfter is how long a pool that is not used any more stays open, for those who
// were given it a moment ago.
const closeAfter = time.Minute

// get returns the pool of a connection, if it is of the generation.
func (s *servers) get(name, generation string) plugin.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.open[name]; ok && o.generation == generation {
		return o.server
	}
	return nil
}

// keep makes a pool that of a connection, unless there is one of the generation by
// now, and returns the one that is kept.
func (s *servers) keep(name, generation string, server plugin.Server) plugin.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]opened{}
	}
	old, ok := s.open[name]
	if ok && old.generation == generation {
		_ = server.Close()
		return old.server
	}
	if ok {
		time.AfterFunc(closeAfter, func() { _ = old.server.Close() })
	}
	s.open[name] = opened{generation, server}
	return server
}

func (s *servers) close(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.open[name]; ok {
		delete(s.open, name)
		time.AfterFunc(closeAfter, func() { _ = o.server.Close() })
	}
}

func (s *servers) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, o := range s.open {
		_ = o.server.Close()
		delete(s.open, name)
	}
}

// config returns the row of a connection.
func (e *Engine) config(ctx context.Context, name string) (*config, error) {
	c, err := e.configs.Lately(ctx, name)
	if err == nil && c == nil {
		err = fault.New(fault.Invalid, "there is no connection %q; write it to %sconfig/%s", name, e.env.Mount.Path, name)
	}
	return c, err
}

// server returns the server of a connection. It is proven to be reached, and by which
// password, only when its pool is opened.
func (e *Engine) server(ctx context.Context, name string) (plugin.Server, *config, error) {
	c, err := e.config(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if srv := e.servers.get(name, c.Generation); srv != nil {
		return srv, c, nil
	}
	srv, err := connect(ctx, c.Plugin, c.Settings)
	if errors.Is(err, plugin.ErrPassword) {
		// The password may have been changed a moment ago, or half-way.
		if c, err = e.configs.Find(ctx, name); err != nil || c == nil {
			return nil, nil, fault.New(fault.Invalid, "the connection %q was removed", name)
		}
		if srv, err = connect(ctx, c.Plugin, c.Settings); errors.Is(err, plugin.ErrPassword) && c.Pending != "" {
			if srv, err = connect(ctx, c.Plugin, c.next()); err == nil {
				c, err = e.settle(ctx, name, c.Pending)
			}
		}
	}
	if err != nil {
		return nil, nil, fault.New(kindOf(err), "connection %s: %s", name, scrub(err, c))
	}
	return e.servers.keep(name, c.Generation, srv), c, nil
}

// connect opens a pool and proves that it works.
func connect(ctx context.Context, name string, s plugin.Settings) (plugin.Server, error) {
	p, err := pluginOf(name)
	if err != nil {
		return nil, err
	}
	srv, err := p.Open(s)
	if err != nil {
		return nil, err
	}
	if err := srv.Verify(ctx); err != nil {
		_ = srv.Close()
		return nil, err
	}
	return srv, nil
}

// next is the settings with the password that is to come.
func (c *config) next() plugin.Settings {
	s := c.Settings
	s.Password = c.Pending
	return s
}

// settle notes that a pending password is the password now, and returns the row.
func (e *Engine) settle(ctx context.Context, name, pending string) (now *config, err error) {
	err = e.configs.Change(ctx, name, func(c *config) error {
		if c.Plugin == "" {
			return fault.New(fault.Invalid, "the connection %q was removed while its password was changed", name)
		}
		if c.Pending == pending {
			c.Settings.Password, c.Pending, c.Rotated, c.Generation = pending, "", time.Now().UTC(), rand.Text()
		}
		row := *c
		now = &row
		return nil
	})
	return now, err
}

// rotateRoot changes the password of a connection's own account. The next password
// is kept before it is set, so that whatever dies in between one of the two works,
// and the next to connect finds out which.
func (e *Engine) rotateRoot(ctx context.Context, _ route.Caller, in Named) (out route.Empty, err error) {
	srv, c, err := e.server(ctx, in.Name)
	if err != nil {
		return out, err
	}
	if !c.templated() {
		return out, fault.New(fault.Invalid, "unable to rotate root credentials: the connection needs a username, and {{password}} in connection_url")
	}
	made, err := e.env.Password(ctx, c.Policy)
	if err != nil {
		return out, err
	}
	pending := made.Reveal()
	if err := e.configs.Change(ctx, in.Name, func(c *config) error {
		if c.Pending == "" {
			c.Pending = pending
		}
		pending = c.Pending
		return nil
	}); err != nil {
		return out, err
	}
	c.Pending = pending
	set, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	if err := srv.SetPassword(set, plugin.Account{Name: c.Settings.Username, Password: pending}, c.Rotation); err != nil {
		if kindOf(err) != fault.Unavailable {
			err = errors.Join(err, e.configs.Change(context.WithoutCancel(ctx), in.Name, func(c *config) error {
				if c.Pending == pending {
					c.Pending = ""
				}
				return nil
			}))
		}
		return out, fault.New(kindOf(err), "unable to rotate root credentials: %s", scrub(err, c))
	}
	if _, err := e.settle(context.WithoutCancel(ctx), in.Name, pending); err != nil {
		return out, err
	}
	e.servers.close(in.Name)
	return out, nil
}

// callTimeout bounds what a database is asked for in a request.
const callTimeout = 25 * time.Second

// kindOf is what a database's refusal is to a client.
func kindOf(err error) fault.Kind {
	if fault.Is(err, fault.Unavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fault.Unavailable
	}
	return fault.Invalid
}

// scrub is an error's words without the passwords of a connection, and others.
func scrub(err error, c *config, others ...string) string {
	text := err.Error()
	if c != nil {
		others = append(others, c.Settings.Password, c.Pending)
	}
	for _, secret := range others {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}
