package app

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/auth/tokens"
	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/broker"
	"github.com/cofferhq/coffer/internal/browser"
	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/cubbyhole"
	"github.com/cofferhq/coffer/internal/engine/identities"
	"github.com/cofferhq/coffer/internal/factor"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/quota"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/sys"
	"github.com/cofferhq/coffer/internal/token"
)

const (
	tokenRows = "core/tokens/"
	auditRows = "core/audit/"
	// cachedTokens is how many tokens are kept in memory, about 1 KiB each.
	cachedTokens = 50_000
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
	sys.Unsealed // of the root namespace
	tokenCache   *barrier.Cache[*token.Token]
	backups      *backup.Scheduler // nil without a backup block
	rotations    *broker.Rotations
	work         sync.WaitGroup
	end          context.CancelFunc
	leave        []func() // end subscriptions to the storage
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
	r.tokenCache = barrier.NewCache(s.barrier, tokenRows+token.Prefix, cachedTokens, token.Decode)
	tokens, err := token.NewStore(ctx, token.Options{
		Storage: storage.Sub(s.barrier, tokenRows), Cache: r.tokenCache, CachePrefix: tokenRows,
		Defaults: func() (time.Duration, time.Duration) { return s.cfg.DefaultLeaseTTL, s.cfg.MaxLeaseTTL },
		Ended:    r.purge, Within: r.within, Log: s.log,
	})
	if err != nil {
		return err
	}
	if err := s.openJobs(ctx, r, tokens); err != nil {
		return err
	}
	if err := s.openRealms(ctx, r, tokens); err != nil {
		return err
	}
	r.follow(s.barrier, auditRows+auditstore.HeaderPrefix, r.Devices.ReconcileHeaders)
	r.Browsers = browser.New(s.barrier)
	if r.Quotas, err = quota.Open(ctx, s.barrier); err != nil {
		return err
	}
	r.leave = append(r.leave, r.Quotas.Close)
	r.follow(s.barrier, auditRows+auditstore.DevicePrefix, r.Devices.Reconcile)
	background := map[string]func(context.Context) error{
		"tokens": tokens.Run, "namespaces": r.Realms.Run, "audit checkpoints": r.Devices.Run, "jobs": r.Jobs.Run,
	}
	if s.shared() {
		background["membership"] = s.member(r.Members)
		background["quotas"] = func(ctx context.Context) error { return r.Quotas.Share(ctx, s.nodeID, r.Members.Live) }
	}
	for name, run := range background {
		r.work.Go(func() { s.keepRunning(life, name, run) })
	}
	if err := s.noticeRestore(ctx); err != nil {
		return err
	}
	s.opened.Store(r)
	s.gateway.Open(&gateway.Services{Realms: r.Realms, Tokens: tokens, Leases: r.Leases, Quotas: r.Quotas})
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

// openRealms opens the namespaces, with Coffer's own mounts in them.
func (s *Server) openRealms(ctx context.Context, r *running, store *token.Store) (err error) {
	own := map[string]*engine.Spec{
		"system": sys.Kind(s.system).Spec(), "cubbyhole": cubbyhole.Kind.Spec(),
		"identity": identities.Kind(identities.Stores{
			Identities: func(namespace string) *identity.Store { return r.Realms.Last(namespace).Identities },
			Factors:    func(namespace string) *factor.Store { return r.Realms.Last(namespace).Factors },
			Brokers:    func(namespace string) *broker.Store { return r.Realms.Last(namespace).Broker },
			Ends: func(ctx context.Context, by route.Caller) (time.Time, error) {
				return store.Ends(ctx, by.Token)
			},
		}).Spec(),
		"token": tokens.Kind(tokens.Options{
			Store: store, Granter: r.granter, HasPolicy: r.hasPolicy, IdentityPolicies: r.identityPolicies,
		}).Spec(),
	}
	r.Realms, err = realm.Open(ctx, realm.Options{
		Barrier: s.barrier, Log: s.log, Tokens: store, Leases: r.Leases, Agenda: r.Agenda, Rotations: r.rotations, Address: s.ownAddress, MaxPayload: int(s.cfg.MaxPayloadSize), NoRows: s.cfg.DisableCache,
		Kinds: func(name, version string) *engine.Spec {
			if spec := own[name]; spec != nil {
				return spec
			}
			return builtin.Engine(name, version)
		},
		Own: []mount.Request{
			{Path: "sys", Type: "system", Description: "system endpoints used for control, policy and debugging"},
			{Path: "auth/token", Type: "token", Description: "token based credentials"},
			{Path: "identity", Type: "identity", Description: "identity store"},
			{Path: "cubbyhole", Type: "cubbyhole", Description: "per-token private secret storage"},
		},
	})
	if err == nil {
		r.Realm = r.Realms.Root()
	}
	return err
}

// of returns the parts of a namespace, by its id.
func (r *running) of(namespace string) *sys.Unsealed {
	out := r.Unsealed
	out.Realm = r.Realms.Last(namespace)
	return &out
}

// cors says whose pages may call; nobody has said it of a server that is sealed.
func (s *Server) cors(ctx context.Context) (*browser.CORS, error) {
	r := s.opened.Load()
	if r == nil {
		return nil, nil
	}
	return r.Browsers.CORS(ctx)
}

// recorded returns what the audit log is to have of a request's headers: of a sealed
// server nothing.
func (s *Server) recorded(sent http.Header) map[string][]string {
	r := s.opened.Load()
	if r == nil {
		return nil
	}
	return r.Devices.Recorded(sent)
}

func (r *running) within(namespace, other string) bool { return r.Realms.Within(namespace, other) }

// purge removes what an ended token had to itself, and takes back what it was lent.
func (r *running) purge(ctx context.Context, namespace, tokenID string) error {
	if err := r.Leases.EndOf(ctx, tokenID); err != nil {
		return err
	}
	there := r.Realms.Of(namespace)
	if there == nil {
		return nil // it ended with all that was in it
	}
	m := there.Mounts.At("cubbyhole")
	if m == nil {
		return nil
	}
	return m.State.(*cubbyhole.Store).Purge(ctx, tokenID)
}

// granter returns the auth mount that granted a token.
func (r *running) granter(tok *token.Token) (tokens.Granter, bool) {
	home := r.Realms.Of(tok.Namespace)
	if home == nil {
		return tokens.Granter{}, false
	}
	for _, m := range home.Mounts.List() {
		if m.Entry.Accessor == tok.Mount {
			return tokens.Granter{
				State: m.State, DefaultTTL: m.Entry.Config.DefaultTTL.Duration(), MaxTTL: m.Entry.Config.MaxTTL.Duration(),
			}, true
		}
	}
	return tokens.Granter{}, false
}

func (r *running) identityPolicies(ctx context.Context, tok *token.Token) ([]string, error) {
	home := r.Realms.Of(tok.Namespace)
	if home == nil {
		return nil, nil
	}
	rights, err := home.Access.Of(ctx, tok)
	return rights.Identity, err
}

func (r *running) hasPolicy(ctx context.Context, namespace, name string) (bool, error) {
	_, err := r.Realms.Last(namespace).Policies.Get(ctx, name)
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
	if r.Realms != nil {
		r.Realms.Close()
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
