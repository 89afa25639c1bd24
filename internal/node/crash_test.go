package node_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/storage"
)

// killed fails its n-th Update, before or after it was committed, and every one
// after it, as a process that was killed would.
type killed struct {
	storage.Engine
	left  atomic.Int64
	after bool
}

var errKilled = errors.New("killed")

func (k *killed) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	n := k.left.Add(-1)
	if n < 0 || n == 0 && !k.after {
		return 0, errKilled
	}
	rev, err := k.Engine.Update(ctx, fn)
	if n == 0 && err == nil {
		return 0, errKilled
	}
	return rev, err
}

// everyKill runs a scenario with a crash at each Update in turn, until one run
// goes through without.
func everyKill(t *testing.T, scenario func(t *testing.T, k *killed, arm func()) (finished bool)) {
	for _, after := range []bool{false, true} {
		for n := int64(1); ; n++ {
			finished := false
			synctest.Test(t, func(t *testing.T) {
				k := &killed{Engine: store(t), after: after}
				k.left.Store(1 << 40)
				finished = scenario(t, k, func() { k.left.Store(n) })
			})
			if finished {
				if n < 3 {
					t.Errorf("only %d updates were reached", n)
				}
				break
			}
		}
	}
}

func TestInitMayBeTriedAgainAfterACrashAnywhere(t *testing.T) {
	for name, seals := range map[string]func(t *testing.T, dir string) []node.Configured{
		"keyfile": func(t *testing.T, dir string) []node.Configured {
			return []node.Configured{file(t, filepath.Join(dir, "key"))}
		},
		"shamir": func(*testing.T, string) []node.Configured { return []node.Configured{people()} },
		"both": func(t *testing.T, dir string) []node.Configured {
			return []node.Configured{file(t, filepath.Join(dir, "key")), people()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			request := node.InitRequest{Shares: 3, Threshold: 2}
			if name == "keyfile" {
				request = node.InitRequest{RecoveryShares: 3, RecoveryThreshold: 2}
			}
			everyKill(t, func(t *testing.T, k *killed, arm func()) bool {
				ctx, dir := t.Context(), t.TempDir()
				s := start(t, k, seals(t, dir)...)
				arm()
				got, err := s.Init(ctx, request)
				if err != nil && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				s.Close()
				again := start(t, k.Engine, seals(t, dir)...)
				must(t, again.AutoUnseal(ctx))
				st, serr := again.Status(ctx)
				must(t, serr)
				finished := err == nil
				if !st.Initialized {
					got, err = again.Init(ctx, request)
					must(t, err)
				} else if err != nil {
					return false // committed, and killed before it could answer
				}
				must(t, again.give(t, got.Shares))
				again.wantSealed(t, false)
				again.wantRow(t, "core/token", token)
				again.wantRow(t, "core/started", "yes")
				return finished
			})
		})
	}
}

func TestRootRotationSurvivesACrashAnywhere(t *testing.T) {
	everyKill(t, func(t *testing.T, k *killed, arm func()) bool {
		ctx, path := t.Context(), filepath.Join(t.TempDir(), "key")
		s := start(t, k, file(t, path), people())
		got, err := s.Init(ctx, node.InitRequest{Shares: 3, Threshold: 2})
		must(t, err)
		s.put(t, "x", "1")
		arm()
		err = s.RotateRoot(ctx)
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		s.Close()

		// Each seal alone opens it, and takes the rotation up as far as it can.
		alone := start(t, k.Engine, people())
		must(t, alone.give(t, got.Shares[:2]))
		alone.wantRow(t, "x", "1")
		alone.Close()
		both := start(t, k.Engine, file(t, path), people())
		must(t, both.AutoUnseal(ctx))
		both.wantRow(t, "x", "1")
		must(t, both.RotateRoot(ctx))
		must(t, both.Seal(ctx))
		must(t, both.give(t, got.Shares[1:]))
		both.wantRow(t, "x", "1")
		return err == nil
	})
}

func TestRekeyLocksNobodyOutAfterACrashAnywhere(t *testing.T) {
	everyKill(t, func(t *testing.T, k *killed, arm func()) bool {
		ctx := t.Context()
		s := start(t, k, people())
		got, err := s.Init(ctx, node.InitRequest{Shares: 3, Threshold: 2})
		must(t, err)
		must(t, s.give(t, got.Shares[:2]))
		// Verified, so that the new shares are known before they count.
		out := rekeyed(t, s, node.RekeyRequest{Shares: 4, Threshold: 3, Verify: true}, got.Shares[1:])
		arm()
		var finished bool
		for _, share := range out.NewShares[:3] {
			st, err := s.RekeyVerify(ctx, out.VerifyNonce, share)
			if err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			finished = st.Complete
		}
		finished = finished && k.left.Load() > 0
		s.Close()
		again := start(t, k.Engine, people())
		st, err := again.Status(ctx)
		must(t, err)
		shares := got.Shares[:2]
		if st.Threshold == 3 {
			shares = out.NewShares[1:]
		}
		must(t, again.give(t, shares))
		again.wantSealed(t, false)
		return finished || k.left.Load() > 0
	})
}

func TestMigrationSurvivesACrashAnywhere(t *testing.T) {
	everyKill(t, func(t *testing.T, k *killed, arm func()) bool {
		ctx, path := t.Context(), filepath.Join(t.TempDir(), "key")
		s := start(t, k, people())
		got, err := s.Init(ctx, node.InitRequest{Shares: 3, Threshold: 2})
		must(t, err)
		s.Close()
		left := people()
		left.Disabled = true
		s = start(t, k, file(t, path), left)
		arm()
		_ = s.give(t, got.Shares[:2])
		finished := k.left.Load() > 0
		s.Close()
		again := start(t, k.Engine, file(t, path), left)
		must(t, again.AutoUnseal(ctx))
		if st := again.status(t); st.Sealed {
			must(t, again.give(t, got.Shares[:2]))
		}
		if st := again.status(t); st.Migration {
			t.Fatalf("not settled: %+v", st)
		}
		must(t, generate(t, again, got.Shares[1:]))
		must(t, again.Seal(ctx))
		must(t, again.AutoUnseal(ctx))
		again.wantSealed(t, false)
		return finished
	})
}
