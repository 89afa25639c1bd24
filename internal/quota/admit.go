package quota

import (
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// Ask is a request as quotas see it.
type Ask struct {
	Namespace string // its path
	Mount     string // its path in the namespace
	Below     string // path in the mount
	Role      string // that a login asks for
	Address   string
	Entity    string
	// Known asks the quotas that count entities, and no others: who asks is known by
	// now.
	Known bool
}

// Left is what the quota that is nearest to its end still allows.
type Left struct {
	Limit, Remaining int
	Reset            time.Duration // until it is whole again
}

// Pass lets a request through. Done must be called when the request is over.
type Pass struct {
	Left *Left // nil where no rate was counted, or answers do not say
	held []held
}

type held struct {
	limit *limit
	group string
}

// Done ends a request.
func (p *Pass) Done() {
	for _, h := range p.held {
		h.limit.release(h.group)
	}
	p.held = nil
}

// Any reports whether there are quotas of requests at all.
func (s *Store) Any() bool { return len(s.current.Load().byMount) > 0 }

// NeedsRole reports whether a quota of a mount asks for a login's role.
func (s *Store) NeedsRole(namespace, mount string) bool {
	for _, l := range s.current.Load().byMount[namespace+"\x00"+mount] {
		if l.Role != "" {
			return true
		}
	}
	return false
}

// Admit counts a request against every quota that it falls under. A fault of kind
// Limited names the first that refuses it, and says when to come again; what the
// others counted is given back where it is of requests under way.
func (s *Store) Admit(a Ask) (Pass, error) {
	ix := s.current.Load()
	var pass Pass
	if ix.exempt(a.Namespace + a.Mount + a.Below) {
		return pass, nil
	}
	now := s.now()
	try := func(list []*limit, whole, inherited bool) error {
		for _, l := range list {
			if l.entities() != a.Known || inherited && !l.Inherit || !whole && !l.covers(a) {
				continue
			}
			if err := s.admit(&pass, l, a, now, ix.config.Headers); err != nil {
				return err
			}
		}
		return nil
	}
	err := try(ix.byMount[a.Namespace+"\x00"+a.Mount], a.Mount == "", false)
	if err == nil && a.Mount != "" {
		err = try(ix.byMount[a.Namespace+"\x00"], true, false)
	}
	for ns := a.Namespace; err == nil && ns != ""; {
		ns = ns[:strings.LastIndexByte(ns[:len(ns)-1], '/')+1]
		err = try(ix.byMount[ns+"\x00"], true, true)
	}
	if err != nil {
		pass.Done()
		return Pass{Left: pass.Left}, err
	}
	return pass, nil
}

func (s *Store) admit(pass *Pass, l *limit, a Ask, now time.Time, say bool) error {
	group := l.group(a)
	if l.Kind == Concurrency {
		if !l.acquire(group, s.shareOf(l)) {
			return l.refuse(time.Second)
		}
		pass.held = append(pass.held, held{l, group})
		return nil
	}
	left, again := l.take(group, now, s.shareOf(l))
	if say && (pass.Left == nil || left.Remaining < pass.Left.Remaining) {
		pass.Left = &left
	}
	if again > 0 {
		return l.refuse(again)
	}
	return nil
}

// refuse counts and words a refusal. Clients look for Vault's words.
func (l *limit) refuse(again time.Duration) error {
	l.refused.Add(1)
	out := fault.New(fault.Limited, "rate limit quota exceeded: quota %q allows %v requests in %v%s; try again in %v", l.Name, l.Rate, l.Interval, l.whom(), again.Round(time.Millisecond))
	if l.Kind == Concurrency {
		out = fault.New(fault.Limited, "concurrency quota exceeded: quota %q allows %d requests at once%s; try again when one is over", l.Name, l.Max, l.whom())
	}
	out.RetryAfter = again
	return out
}

func (l *limit) whom() string {
	switch l.GroupBy {
	case Together:
		return " for all callers together"
	case ByAddress:
		return " for each client address"
	}
	return " for each entity"
}

// exempt reports whether no quota counts a path from the root.
func (ix *index) exempt(path string) bool {
	for _, e := range ix.config.Exempt {
		if prefix, glob := strings.CutSuffix(e, "*"); glob && strings.HasPrefix(path, prefix) || e == path {
			return true
		}
	}
	return false
}
