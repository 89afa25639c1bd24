package realm

import (
	"context"

	"github.com/cofferhq/coffer/internal/agenda"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/storage"
)

// mounted returns an opened mount, by its namespace's id and its UUID, and the realm
// it is in; nil when it is not there.
func (t *Table) mounted(namespace, uuid string) (*mount.Mounted, *Realm) {
	r := t.Of(namespace)
	if r == nil {
		return nil, nil
	}
	return r.Mounts.ByUUID(uuid), r
}

// Lender finds the mount that lent something, for lease.Options.
func (t *Table) Lender(namespace, uuid string) (lease.Target, bool) {
	m, _ := t.mounted(namespace, uuid)
	if m == nil {
		return lease.Target{}, false
	}
	return lease.Target{Path: m.Entry.Path, Spec: m.Spec, State: m.State}, true
}

// Tasked finds the mount that has something to do, for agenda.Options.
func (t *Table) Tasked(namespace, uuid string) (agenda.Target, bool) {
	m, r := t.mounted(namespace, uuid)
	if m == nil {
		return agenda.Target{}, false
	}
	return agenda.Target{Spec: m.Spec, State: m.State, Prefix: r.Mounts.Scope(m) + "/"}, true
}

// MountGone reports whether a mount, or its namespace, is there no more.
func MountGone(r storage.Reader, id, uuid string) (bool, error) {
	switch err := namespace.There(r, id); {
	case fault.Is(err, fault.NotFound):
		return true, nil
	case err != nil:
		return false, err
	}
	return mount.Gone(r, (&namespace.Namespace{ID: id}).Prefix(), uuid)
}

// takeBack takes back what is lent in a namespace.
func (t *Table) takeBack(ctx context.Context, id string) error {
	r := t.Of(id)
	if r == nil {
		return nil
	}
	return r.Mounts.TakeBack(ctx)
}
