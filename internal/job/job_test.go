package job_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/job/jobtest"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInABubble(t *testing.T) {
	jobtest.Run(t, jobtest.Options{
		New: func(testing.TB) func() storage.Engine {
			e := jobtest.Optimistic(memory.New())
			return func() storage.Engine { return e }
		},
	})
}
