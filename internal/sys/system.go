// Package sys is Coffer's own API below sys/, as ordinary routes: init and seal,
// mounts, policies, capabilities, wrapping, audit devices, health and metrics.
// It decides nothing itself: each route asks the part that owns the matter.
package sys

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/agenda"
	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/browser"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/member"
	"github.com/cofferhq/coffer/internal/monitor"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/quota"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
)

// Unsealed are the parts that there are only while the server is unsealed.
type Unsealed struct {
	*realm.Realm // of the namespace that is asked
	Realms       *realm.Table
	Quotas       *quota.Store
	Devices      *auditstore.Store
	Browsers     *browser.Store
	Members      *member.Members
	Jobs         *job.Workers
	Leases       *lease.Book
	Agenda       *agenda.Book
}

// Options are what the routes ask.
type Options struct {
	Node *node.Node
	// Opened returns the parts that a namespace of the open server has, or had when
	// a request that was let in is overtaken by a seal or the namespace's deletion:
	// they refuse what they are asked then. Routes that work while sealed must not
	// call it.
	Opened func(namespace string) *Unsealed
	// Why explains a denial of a request in a namespace, or below it.
	Why func(requestID, namespace string) (Why, error)
	// RightsOf returns what the holder of a token may do in a namespace.
	RightsOf func(ctx context.Context, tok *token.Token, namespace string) (route.Rights, error)
	AuditLog func() (AuditLog, error)
	// RepairAuditLog brings a log back that refuses entries; an operator asks
	// for it, never the server itself.
	RepairAuditLog func() error
	Metrics        func(format string) (route.Raw, error)
	OpenAPI        func() ([]byte, error)
	Sanitized      func() (SanitizedConfig, error)
	InFlight       func() []InFlight
	// Log is listened to by those who monitor the server.
	Log *monitor.Tap
	// Backup writes an archive of the open store; Backups says how those on a
	// schedule stand.
	Backup  func(context.Context, io.Writer) (backup.Summary, error)
	Backups func(context.Context) (backup.Status, error)
	Kinds   func() []*engine.Spec
	// ClusterName is the name of the cluster that has an id.
	ClusterName func(id string) string
	NewPad      func() string // a one-time pad as long as a root token
	Address     string        // api_addr
	// Storage says how the storage engine is seen from here; only while unsealed.
	// answered says that it has just answered.
	Storage func(ctx context.Context, answered bool) Storage
	// StorageType is the kind of the storage engine, and Shared whether other nodes
	// may use it too.
	StorageType string
	Shared      bool
	Version     Version
}

// Storage is how the storage engine is seen from this node.
type Storage struct {
	Reached bool          // it answers
	Behind  time.Duration // how old at most what is answered from memory is
	Serving bool          // reads are answered, from memory where the engine is away
}

// System holds the state of the routes.
type System struct {
	Options
	namespace string       // whose sys/ it is, by its id
	backups   atomic.Int32 // archives being streamed
}

// New returns the routes' state.
func New(options Options) *System { return &System{Options: options} }

// Open returns the parts of the namespace whose sys/ is asked.
func (s *System) Open() *Unsealed { return s.Opened(s.namespace) }

// Kind declares sys/: s is the root's, and namespaces have one of their own.
func Kind(s *System) engine.Kind[struct{}, *System] {
	return engine.Kind[struct{}, *System]{
		Name: "system", Class: engine.System, Doc: "Coffer itself: seals, mounts, policies, audit, health.",
		Open: func(_ context.Context, env engine.Env, _ struct{}) (*System, error) {
			if env.Mount.Namespace == "" {
				return s, nil
			}
			return &System{Options: s.Options, namespace: env.Mount.Namespace}, nil
		},
		Routes: Routes(),
	}
}

// everywhere are the routes that every namespace has, and ofTheServer those that only
// the root has.
var (
	everywhere = [][]route.Route[*System]{
		mountRoutes,
		authRoutes,
		catalogRoutes,
		policyRoutes,
		whoCanRoutes,
		passwordRoutes,
		toolRoutes,
		appliedRoutes,
		wrappingRoutes,
		leaseRoutes,
		namespaceRoutes,
		mfaRoutes,
	}
	ofTheServer = [][]route.Route[*System]{
		sealRoutes,
		statusRoutes,
		auditRoutes,
		infoRoutes,
		monitorRoutes,
		auditHeaderRoutes,
		profileRoutes,
		backupRoutes,
		browserRoutes,
		quotaRoutes,
	}
)

// Routes returns every route below sys/.
func Routes() []route.Route[*System] {
	var all []route.Route[*System]
	for _, some := range everywhere {
		all = append(all, some...)
	}
	for _, some := range ofTheServer {
		all = append(all, route.With(route.RootOnly(), some)...)
	}
	return all
}
