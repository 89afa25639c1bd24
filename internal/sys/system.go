// Package sys is Coffer's own API below sys/, as ordinary routes: init and seal,
// mounts, policies, capabilities, wrapping, audit devices, health and metrics.
// It decides nothing itself: each route asks the part that owns the matter.
package sys

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/audit/auditstore"
	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/member"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
)

// Unsealed are the parts that there are only while the server is unsealed.
type Unsealed struct {
	Mounts   *mount.Table
	Tokens   *token.Store
	Policies *policystore.Store
	Devices  *auditstore.Store
	Members  *member.Members
	Jobs     *job.Workers
}

// Options are what the routes ask.
type Options struct {
	Node *node.Node
	// Open returns the parts that the open server has, or had when a request that
	// was let in is overtaken by a seal: they refuse what they are asked then.
	// Routes that work while sealed must not call it.
	Open     func() *Unsealed
	Why      func(requestID string) (Why, error)
	AuditLog func() (AuditLog, error)
	// RepairAuditLog brings a log back that refuses entries; an operator asks
	// for it, never the server itself.
	RepairAuditLog func() error
	Metrics        func(format string) (route.Raw, error)
	OpenAPI        func() ([]byte, error)
	Sanitized      func() (SanitizedConfig, error)
	InFlight       func() []InFlight
	// Backup writes an archive of the open store; Backups says how those on a
	// schedule stand.
	Backup    func(context.Context, io.Writer) (backup.Summary, error)
	Backups   func() backup.Status
	Kinds     func() []*engine.Spec
	ClusterID func() (id, name string)
	NewPad    func() string // a one-time pad as long as a root token
	Address   string        // api_addr
	// Storage says how the storage engine is seen from here; only while unsealed.
	Storage func(context.Context) Storage
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
	backups atomic.Int32 // archives being streamed
}

// New returns the routes' state.
func New(options Options) *System { return &System{Options: options} }

// Kind declares sys/ around the one System there is.
func Kind(s *System) engine.Kind[struct{}, *System] {
	return engine.Kind[struct{}, *System]{
		Name: "system", Class: engine.System, Doc: "Coffer itself: seals, mounts, policies, audit, health.",
		Open:   func(context.Context, engine.Env, struct{}) (*System, error) { return s, nil },
		Routes: Routes(),
	}
}

// Routes returns every route below sys/.
func Routes() []route.Route[*System] {
	var all []route.Route[*System]
	for _, some := range [][]route.Route[*System]{
		sealRoutes, statusRoutes, mountRoutes, authRoutes, catalogRoutes, policyRoutes, wrappingRoutes, auditRoutes, infoRoutes, profileRoutes, leaseRoutes, backupRoutes,
	} {
		all = append(all, some...)
	}
	return all
}
