package app

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/auth/tokens"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/cubbyhole"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/sys"
	"github.com/cofferhq/coffer/internal/token"
)

const (
	tokenRows = "core/tokens/"
	auditRows = "core/audit/"
	// cachedTokens is how many tokens are kept in memory, about 1 KiB each.
	cachedTokens = 50_000
	// cachedRows is how many rows of mounts are kept in memory, none larger than
	// cachedRow bytes: a hundred MiB at most, a tenth of that with usual secrets.
	cachedRows = 16 << 10
	cachedRow  = 6 << 10
)

// tokenLength is how many characters a root token has.
const tokenLength = 100

// keeper passes checkpoints on to the store that is open, if one is.
type keeper struct {
	store atomic.Pointer[auditstore.Store]
}

// Keep implements audit.Options.OnCheckpoint.
func (k *keeper) Keep(c audit.Checkpoint) {
	if s := k.store.Load(); s != nil {
		s.Keep(c)
	}
}

// running is what an unsealed server has.
type running struct {
	sys.Unsealed
	tokenCache *barrier.Cache[*token.Token]
	rowCache   *barrier.Cache[[]byte] // nil with disable_cache
	work       sync.WaitGroup
	end        context.CancelFunc
	leave      []func() // end subscriptions to the storage
}

// follow has fn called when another node may have changed something under prefix.
func (r *running) follow(b *barrier.Barrier, prefix string, fn func(context.Context) error) {
	r.leave = append(r.leave, b.Subscribe(prefix, fn))
}

// unseal starts what an open server does.
func (s *Server) unseal(ctx context.Context) (err error) {
	r := &running{}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	r.end = end
	s.setRunning(r) // for seal, which cleans up after an error
	if err := s.join(ctx, r); err != nil {
		return err
	}
	log := auditstore.Own{Log: s.audit, Node: s.auditNode(), Origin: s.origin, AcceptLoss: uint64(s.cfg.Audit.AcceptLoss)}
	if r.Devices, err = auditstore.Open(ctx, storage.Sub(s.barrier, auditRows), log, s.log); err != nil {
		return err
	}
	s.keeper.store.Store(r.Devices)
	r.Policies = policystore.New(s.barrier)
	if err := r.Policies.Seed(ctx); err != nil {
		return err
	}
	r.tokenCache = barrier.NewCache(s.barrier, tokenRows+token.Prefix, cachedTokens, token.Decode)
	r.Tokens, err = token.NewStore(ctx, token.Options{
		Storage: storage.Sub(s.barrier, tokenRows), Cache: r.tokenCache, CachePrefix: tokenRows,
		Defaults: func() (time.Duration, time.Duration) { return s.cfg.DefaultLeaseTTL, s.cfg.MaxLeaseTTL },
		Ended:    r.purge, Log: s.log,
	})
	if err != nil {
		return err
	}
	if !s.cfg.DisableCache {
		r.rowCache = barrier.NewCache(s.barrier, mount.Prefix, cachedRows, func(_ string, row []byte) ([]byte, error) {
			return bytes.Clone(row), nil
		})
		r.rowCache.Keeps = func(row []byte) bool { return len(row) <= cachedRow }
	}
	if err := s.openMounts(ctx, r); err != nil {
		return err
	}
	r.follow(s.barrier, auditRows+auditstore.DevicePrefix, r.Devices.Reconcile)
	if err := s.openJobs(r); err != nil {
		return err
	}
	background := map[string]func(context.Context) error{
		"tokens": r.Tokens.Run, "mounts": r.Mounts.Run, "audit checkpoints": r.Devices.Run, "jobs": r.Jobs.Run,
	}
	if s.shared() {
		background["membership"] = s.member(r.Members)
	}
	for name, run := range background {
		r.work.Go(func() { s.keepRunning(life, name, run) })
	}
	if err := s.noticeRestore(ctx); err != nil {
		return err
	}
	s.startBackups(life, r)
	s.opened.Store(&r.Unsealed)
	s.gateway.Open(&gateway.Services{Mounts: r.Mounts, Tokens: r.Tokens, Policies: r.Policies})
	s.log.Info("the server is unsealed")
	return nil
}

// keepRunning runs a part until ctx ends; should it end before, it is started
// again, because a cache or a sweep that stands still is worse than a retry.
func (s *Server) keepRunning(ctx context.Context, name string, run func(context.Context) error) {
	for ctx.Err() == nil {
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		s.log.Error("background work ended and is started again", "work", name, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// openMounts opens the mount table with Coffer's own mounts in it.
func (s *Server) openMounts(ctx context.Context, r *running) (err error) {
	own := map[string]*engine.Spec{
		"system": sys.Kind(s.system).Spec(), "cubbyhole": cubbyhole.Kind.Spec(),
		"token": tokens.Kind(tokens.Options{Store: r.Tokens, Granter: r.granter, HasPolicy: r.hasPolicy}).Spec(),
	}
	r.Mounts, err = mount.Open(ctx, mount.Options{
		Barrier: s.barrier, Log: s.log, MaxPayload: int(s.cfg.MaxPayloadSize), Rows: r.rowCache,
		Kinds: func(name, version string) *engine.Spec {
			if spec := own[name]; spec != nil {
				return spec
			}
			return builtin.Engine(name, version)
		},
	})
	if err != nil {
		return err
	}
	for _, m := range []mount.Request{
		{Path: "sys", Type: "system", Description: "system endpoints used for control, policy and debugging"},
		{Path: "auth/token", Type: "token", Description: "token based credentials"},
		{Path: "cubbyhole", Type: "cubbyhole", Description: "per-token private secret storage"},
	} {
		m.Class = engine.System
		if err := r.Mounts.Ensure(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// purge removes what an ended token had to itself.
func (r *running) purge(ctx context.Context, tokenID string) error {
	m := r.Mounts.At("cubbyhole")
	if m == nil {
		return nil
	}
	return m.State.(*cubbyhole.Store).Purge(ctx, tokenID)
}

// granter returns the auth mount that granted a token.
func (r *running) granter(accessor string) (tokens.Granter, bool) {
	for _, m := range r.Mounts.List() {
		if m.Entry.Accessor == accessor {
			return tokens.Granter{
				State: m.State, DefaultTTL: m.Entry.Config.DefaultTTL.Duration(), MaxTTL: m.Entry.Config.MaxTTL.Duration(),
			}, true
		}
	}
	return tokens.Granter{}, false
}

func (r *running) hasPolicy(ctx context.Context, name string) (bool, error) {
	_, err := r.Policies.Get(ctx, name)
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
		return false, nil
	}
	return err == nil, err
}

// seal stops what unseal started, also when it started only in part.
func (s *Server) seal() {
	s.gateway.Shut()
	r := s.getRunning()
	s.setRunning(nil)
	s.keeper.store.Store(nil)
	if r == nil {
		return
	}
	r.end()
	for _, leave := range r.leave {
		leave()
	}
	if r.Mounts != nil {
		r.Mounts.Close()
	}
	r.work.Wait()
	if r.Devices != nil {
		r.Devices.Close()
	}
	s.log.Info("the server is sealed")
}

func (s *Server) setRunning(r *running) {
	s.runningMu.Lock()
	defer s.runningMu.Unlock()
	s.running = r
}

func (s *Server) getRunning() *running {
	s.runningMu.RLock()
	defer s.runningMu.RUnlock()
	return s.running
}
