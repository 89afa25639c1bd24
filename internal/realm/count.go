package realm

import (
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/quota"
)

// LeaseBounds are the quotas that a new lease falls under.
func (t *Table) LeaseBounds(quotas *quota.Store, l *lease.Lease) (bounds []lease.Bound) {
	m, r := t.mounted(l.Namespace, l.Mount())
	if m == nil {
		return nil
	}
	for _, q := range quotas.LeaseLimits(r.Namespace.Path, m.Entry.Path, l.Path()) {
		bounds = append(bounds, lease.Bound{
			Max: q.Max, Groups: t.Lent(q.Namespace, q.Mount, q.Below, q.Inherit), Refuse: q.Refuse,
		})
	}
	return bounds
}

// Lent is the leases of a path as they are counted: of a namespace, and of those
// below it where below is asked for; of a mount; of what is below a mount, where a *
// at the end is any ending.
func (t *Table) Lent(namespace, mount, path string, below bool) []lease.Group {
	r := t.At(namespace)
	if r == nil {
		return nil
	}
	if mount == "" {
		groups := []lease.Group{lease.OfNamespace(r.Namespace.ID)}
		switch {
		case below && namespace == "":
			return []lease.Group{lease.All()}
		case below:
			for _, other := range t.Below(r) {
				groups = append(groups, lease.OfNamespace(other.Namespace.ID))
			}
		}
		return groups
	}
	m, _ := r.Mounts.Find(mount)
	switch {
	case m == nil:
		return nil
	case path == "":
		return []lease.Group{lease.OfMount(r.Namespace.ID, m.Entry.UUID)}
	}
	return []lease.Group{lease.OfPath(m.Entry.UUID, path)}
}
