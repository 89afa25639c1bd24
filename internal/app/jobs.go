package app

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/agenda"
	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/broker"
	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/metrics"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/token"
)

// aloneBeat is how often a node says that it lives where no other can listen.
const aloneBeat = 15 * time.Second

// openJobs makes the workers of what time drives. A kind of job is added here.
func (s *Server) openJobs(ctx context.Context, r *running, store *token.Store) (err error) {
	o := job.Options{Engine: s.barrier, Node: s.nodeID, Offset: r.Members.Offset, Log: s.log}
	if !s.shared() {
		o.Beat = aloneBeat
	}
	if r.Jobs, err = job.New(o); err != nil {
		return err
	}
	if r.Leases, err = lease.Open(lease.Options{
		Engine: s.barrier, Server: store.Lifetimes, Log: s.log, Record: s.recordLease,
		Bounds:  func(l *lease.Lease) []lease.Bound { return r.Realms.LeaseBounds(r.Quotas, l) },
		MaxHeld: func() int { c := r.Quotas.Config(); return c.Held() },
		Find:    func(namespace, uuid string) (lease.Target, bool) { return r.Realms.Lender(namespace, uuid) },
		Borrower: func(all storage.Reader, by route.Caller) (lease.Borrower, error) {
			id, until, err := store.Borrower(storage.SubReader(all, tokenRows), by.TokenID, by.Token)
			return lease.Borrower{Token: id, Until: until}, err
		},
		Ended: func(all storage.Reader, id string) (bool, error) {
			return token.Ended(storage.SubReader(all, tokenRows), id)
		},
	}, r.Jobs); err != nil {
		return err
	}
	if r.Agenda, err = agenda.Open(agenda.Options{
		Engine: s.barrier,
		Find:   func(namespace, uuid string) (agenda.Target, bool) { return r.Realms.Tasked(namespace, uuid) },
		Gone:   realm.MountGone,
	}, r.Jobs); err != nil {
		return err
	}
	r.rotations = &broker.Rotations{Barrier: s.barrier, Record: s.recordRotation, Log: s.log}
	if err := r.rotations.Join(r.Jobs); err != nil {
		return err
	}
	return s.scheduleBackups(ctx, r)
}

// recordLease puts the end of a lease into the audit log.
func (s *Server) recordLease(ctx context.Context, l *lease.Lease, id string, failed error) {
	e := &audit.Entry{Type: audit.Event, Event: "lease-ended", Subject: audit.Subject{Path: id, Label: l.Ending.Why}}
	if failed != nil {
		e.Event, e.Error = "lease-set-aside", failed.Error()
		s.log.Error("a lease could not be taken back and is set aside; mend what is in the way and revoke it again", "lease", id, "error", failed)
	}
	if err := s.audit.Append(ctx, e); err != nil {
		s.log.Error("the end of a lease could not be recorded", "lease", id, "error", err)
	}
}

// recordRotation puts the rotation of a key of identity tokens into the audit log.
func (s *Server) recordRotation(ctx context.Context, namespace, key, id string) error {
	return s.audit.Append(ctx, &audit.Entry{Type: audit.Event, Event: "signing-key-rotated", Subject: audit.Subject{
		Path: namespace + broker.Below + "/key/" + key, Label: "kid " + id,
	}})
}

func (s *Server) jobFigures() (all []metrics.Jobs) {
	r := s.opened.Load()
	if r == nil || s.getRunning() == nil {
		return nil
	}
	for _, q := range r.Jobs.Queues() {
		f := q.Stats()
		all = append(all, metrics.Jobs{Kind: f.Kind, Claims: f.Claims, Due: f.Due, Lag: f.Lag, Done: f.Ran, Failed: f.Failed, Lost: f.Lost})
	}
	return all
}

// leaseFigures counts the leases of all nodes.
func (s *Server) leaseFigures() (metrics.Leases, bool) {
	r := s.opened.Load()
	if r == nil || s.getRunning() == nil {
		return metrics.Leases{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), figuresPatience)
	defer cancel()
	f, err := r.Leases.Stats(ctx)
	return metrics.Leases(f), err == nil
}

// figuresPatience is how long those who ask for metrics wait for a store that does not
// answer.
const figuresPatience = 2 * time.Second
