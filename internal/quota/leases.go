package quota

import (
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
)

// LeaseLimit is a quota that a new lease falls under.
type LeaseLimit struct {
	Quota
	limit *limit
}

// Refuse counts a refusal and words it. Clients look for Vault's words.
func (l LeaseLimit) Refuse(n int) error {
	l.limit.refused.Add(1)
	where := "there are"
	if l.Path() != "" {
		where = l.Path() + " has lent"
	}
	return fault.New(fault.Limited, "lease count quota exceeded: quota %q allows %d leases at once, and %s %d; revoke some (`coffer lease revoke`), or raise its max_leases", l.Name, l.Max, where, n)
}

// LeaseLimits returns the quotas that a new lease falls under, which is lent at a path
// below a mount.
func (s *Store) LeaseLimits(namespace, mount, below string) (all []LeaseLimit) {
	lending := s.current.Load().lending
	if len(lending) == 0 {
		return nil
	}
	for _, l := range lending[namespace+"\x00"+mount] {
		if l.covers(Ask{Below: below}) {
			all = append(all, LeaseLimit{l.Quota, l})
		}
	}
	for ns, inherited := namespace, false; ; inherited = true {
		for _, l := range lending[ns+"\x00"] {
			if l.Inherit || !inherited {
				all = append(all, LeaseLimit{l.Quota, l})
			}
		}
		if ns == "" {
			return all
		}
		ns = ns[:strings.LastIndexByte(ns[:len(ns)-1], '/')+1]
	}
}
