package kv

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Limits of a secret's path and payload.
const (
	MaxPath           = 1024    // bytes
	DefaultMaxPayload = 1 << 20 // bytes, unless the server sets another limit
)

// Mount is the options of a mount.
type Mount struct {
	Version string `json:"version"` // picked the kind already
}

// Store is the secrets of one mount.
type Store struct {
	engine     storage.Engine
	log        *slog.Logger
	mount      engine.Mount
	print      func([]byte) string
	maxPayload int
	rules      ruleCache
	reads      readLog
	// untidy is told that there is work for Run before its next round.
	untidy chan struct{}
}

func open(_ context.Context, env engine.Env, _ Mount) (*Store, error) {
	s := &Store{
		engine: env.Storage, log: env.Log, mount: env.Mount, print: env.Fingerprint,
		maxPayload: env.MaxPayload, untidy: make(chan struct{}, 1),
	}
	if s.maxPayload <= 0 {
		s.maxPayload = DefaultMaxPayload
	}
	return s, nil
}

// checkPath refuses what cannot name a secret.
func checkPath(path string) error {
	switch {
	case path == "":
		return fault.New(fault.Invalid, "missing path")
	case len(path) > MaxPath:
		return fault.New(fault.Invalid, "the path is %d bytes long; a secret's path may have at most %d", len(path), MaxPath)
	case !utf8.ValidString(path):
		return fault.New(fault.Invalid, "the path is not valid UTF-8")
	case path[len(path)-1] == '/':
		return fault.New(fault.Invalid, "the path ends in a slash, which names a folder; leave it out to name a secret")
	case strings.ContainsFunc(path, unicode.IsControl):
		return fault.New(fault.Invalid, "the path holds a control character")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fault.New(fault.Invalid, "the path has the segment %q, which cannot be addressed", segment)
		}
	}
	return nil
}

// folder returns the path of a folder without its slash, "" for the root.
func folder(path string) (string, error) {
	if path = strings.TrimSuffix(path, "/"); path == "" {
		return "", nil
	}
	return path, checkPath(path)
}

// update is one durable transaction; what does not fit is the client's doing.
func (s *Store) update(ctx context.Context, fn func(storage.Txn) error) error {
	_, err := s.engine.Update(ctx, fn)
	if errors.Is(err, storage.ErrTooLarge) {
		return fault.Wrap(fault.TooLarge, err, "the secret with its metadata is larger than storage takes at once; at most %d bytes fit", storage.MaxUpdateBytes)
	}
	return err
}

// checkSize refuses a payload over the limit.
func (s *Store) checkSize(data []byte) error {
	if len(data) > s.maxPayload {
		return fault.New(fault.TooLarge, "the secret is %d bytes; at most %d are accepted (max_payload_size); store larger things elsewhere and a reference here", len(data), s.maxPayload)
	}
	return nil
}

// now is the time that is stored and compared, in UTC.
func now() time.Time { return time.Now().UTC() }
