package barrier_test

import (
	"context"
	"testing"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// The barrier keeps the whole contract of the engine that it stands before.
func TestBarrierIsAStorageEngine(t *testing.T) {
	storagetest.Run(t, storagetest.Options{
		New: func(t testing.TB) storagetest.Opener {
			root := newRoot(t)
			return func() (storage.Engine, error) {
				b := barrier.New(memory.New(), quiet)
				if err := b.Initialize(context.Background(), root); err != nil {
					return nil, err
				}
				if err := b.Open(context.Background(), root); err != nil {
					return nil, err
				}
				_, err := b.Update(context.Background(), func(x storage.Txn) error {
					return b.CreateKeys(x, "mount/1")
				})
				return b, err
			}
		},
		Keys:     2000,
		Overhead: barrier.Overhead,
	})
}
