package storagetest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/cofferhq/coffer/internal/storage"
)

// Pair opens a store twice, for engines that serve several nodes: what holds on
// one holds on two.
func Pair(open Opener) Opener {
	return func() (storage.Engine, error) {
		var p pair
		for i := range p.nodes {
			e, err := open()
			if err != nil {
				return nil, err
			}
			p.nodes[i] = e
		}
		return &p, nil
	}
}

// pair is two nodes on one store; calls go to the one and the other in turn.
type pair struct {
	nodes [2]storage.Engine
	calls atomic.Int64
}

func (p *pair) next() storage.Engine { return p.nodes[p.calls.Add(1)%2] }

func (p *pair) View(ctx context.Context, fn func(storage.Reader) error) error {
	return p.next().View(ctx, fn)
}

func (p *pair) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	return p.next().Update(ctx, fn)
}

func (p *pair) Watch(ctx context.Context, prefix string, from storage.Revision, fn func(storage.Commit) error) error {
	return p.next().Watch(ctx, prefix, from, fn)
}

func (p *pair) Close() error { return errors.Join(p.nodes[0].Close(), p.nodes[1].Close()) }
