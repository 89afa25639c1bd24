package app

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/cofferhq/coffer/internal/format"
	"github.com/cofferhq/coffer/internal/member"
)

// shared reports whether other nodes may use the storage too.
func (s *Server) shared() bool { return s.cfg.Storage.Settings != nil }

// release is what this binary knows of stores.
func (s *Server) release() format.Release {
	return format.Release{Knows: format.Current, Name: s.version.Coffer}
}

// join makes the node known to the others, and then makes sure that it can use the
// store as it is.
func (s *Server) join(ctx context.Context, r *running) error {
	host, _ := os.Hostname()
	address := s.ownURL()
	r.Members = member.New(member.Options{
		Engine: s.barrier, Log: s.log,
		Self: member.Info{
			Node: s.nodeID, Hostname: host, APIAddress: address, ClusterAddress: s.cfg.ClusterAddr,
			Version: s.version.Wire(), Knows: format.Current, Started: time.Now().UTC(),
		},
	})
	if err := r.Members.Join(ctx); err != nil {
		return err
	}
	r.follow(s.barrier, member.Prefix, r.Members.Look)
	_, err := s.release().Enter(ctx, s.barrier)
	return err
}

// ownURL is how clients reach this node, as far as that is known.
func (s *Server) ownURL() string {
	if s.cfg.APIAddr == "" && len(s.listeners) > 0 {
		return s.listeners[0].url()
	}
	return s.cfg.APIAddr
}

// ownAddress is how clients reach the server whichever node answers, "" where that is
// not known: of several nodes each has an address of its own, and a listener on all
// interfaces has none.
func (s *Server) ownAddress() string {
	switch {
	case s.shared():
		return ""
	case s.cfg.APIAddr != "":
		return s.cfg.APIAddr
	}
	for _, l := range s.listeners {
		if a, ok := l.net.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
			return l.url()
		}
	}
	return ""
}

// raiseEvery is how often a node looks whether the store's format can be raised.
const raiseEvery = time.Minute

// member keeps the node known, and raises the store's format once every node
// knows the newer one.
func (s *Server) member(m *member.Members) func(context.Context) error {
	return func(ctx context.Context) error {
		beating := make(chan error, 1)
		go func() { beating <- m.Run(ctx) }()
		for {
			if f, err := s.release().Raise(ctx, s.barrier, m.Formats); err == nil && f != format.Current {
				s.log.Info("nodes of an older release are live; the store keeps its format", "format", f, "newest", format.Current)
			}
			select {
			case err := <-beating:
				return err
			case <-time.After(raiseEvery):
			}
		}
	}
}
