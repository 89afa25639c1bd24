package userpass

import (
	"context"
	"runtime"
	"sync/atomic"
)

// slots is how many passwords are hashed at once.
func slots() int { return min(4, max(1, runtime.GOMAXPROCS(0))) }

// hashing bounds the passwords that are hashed at once, in all mounts.
type hashing struct {
	slots  chan struct{}
	hashed atomic.Uint64 // passwords hashed
}

func newHashing() *hashing { return &hashing{slots: make(chan struct{}, slots())} }

// work runs fn, which hashes a password, when there is a slot.
func (h *hashing) work(ctx context.Context, fn func()) error {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.slots }()
	h.hashed.Add(1)
	fn()
	return nil
}
