package kv

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// DefaultMaxPayload is the most bytes of a secret's data, unless the server sets
// another limit.
const DefaultMaxPayload = 1 << 20

// Mount is the options of a mount.
type Mount struct {
	Version string `json:"version"` // picked the kind already
}

// Store is the secrets of one mount.
type Store struct {
	engine     storage.Engine
	recent     func(context.Context, string) ([]byte, error)
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
		engine: env.Storage, recent: env.Recent, log: env.Log, mount: env.Mount, print: env.Fingerprint,
		maxPayload: env.MaxPayload, untidy: make(chan struct{}, 1),
	}
	if s.maxPayload <= 0 {
		s.maxPayload = DefaultMaxPayload
	}
	return s, nil
}

// update is one durable transaction; what does not fit is the client's doing.
func (s *Store) update(ctx context.Context, fn func(storage.Txn) error) error {
	_, err := s.engine.Update(ctx, fn)
	if errors.Is(err, storage.ErrTooLarge) {
		return fault.Wrap(fault.TooLarge, err, "the change is larger than storage takes at once: %d bytes with the metadata, and %d rows", storage.MaxUpdateBytes, storage.MaxUpdateKeys)
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
