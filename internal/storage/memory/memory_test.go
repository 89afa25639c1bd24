package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) {
	storagetest.Run(t, storagetest.Options{
		New: func(testing.TB) storagetest.Opener {
			return func() (storage.Engine, error) { return memory.New(), nil }
		},
		Keys: 20_000, // a commit copies the map
	})
}
