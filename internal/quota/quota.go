// Package quota bounds how often and how many at once requests are made: of the whole
// server, of a namespace, a mount, a path or a login role, for all callers together or
// for each; and how much may be lent at once. Every quota that a request falls under
// must let it through.
//
// Quotas are rows; what they count of requests is in this node's memory, so that no
// request writes for them. See Share for what that means with several nodes. The
// gateway asks. Leases are counted by package lease, which asks for the limits of
// each. The package knows no routes, no tokens and no leases.
package quota

import (
	"context"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
)

// Kind is what a quota bounds.
type Kind string

// The kinds.
const (
	Rate        Kind = "rate-limit"  // requests per interval
	Concurrency Kind = "concurrency" // requests under way
	LeaseCount  Kind = "lease-count" // leases that there are
)

// Grouping says for whom a quota counts apart.
type Grouping string

// The groupings, in Vault's words.
const (
	ByAddress          Grouping = "ip"               // each client address
	Together           Grouping = "none"             // all callers together
	ByEntityOrAddress  Grouping = "entity_then_ip"   // each entity; requests without one by address
	ByEntityOrTogether Grouping = "entity_then_none" // each entity; requests without one together
)

// Limits.
const (
	MaxQuotas   = 10_000
	MaxRate     = 1e9
	MaxInterval = 24 * time.Hour
	MaxParallel = 1 << 30
	MaxLeases   = 1 << 40
	// DefaultHeld is how many leases one holder may have unless it was said otherwise.
	DefaultHeld = 10_000
	// MaxGroups is how many callers a quota tells apart. When as many are active at
	// once, all further ones are counted as one.
	MaxGroups = 50_000
)

// Quota is a row. The namespace, the mount and what is below it were one path when it
// was written.
type Quota struct {
	Name      string        `json:"name"`
	Kind      Kind          `json:"kind"`
	Namespace string        `json:"namespace,omitempty"` // its path
	Mount     string        `json:"mount,omitempty"`     // its path in the namespace; "" is all of the namespace
	Below     string        `json:"below,omitempty"`     // path in the mount; a * at its end is any ending
	Role      string        `json:"role,omitempty"`      // logins as that role only
	Inherit   bool          `json:"inherit,omitempty"`   // counts in the namespaces below, too
	GroupBy   Grouping      `json:"group_by"`
	Rate      float64       `json:"rate,omitempty"` // requests per interval
	Interval  time.Duration `json:"interval,omitempty"`
	Block     time.Duration `json:"block,omitempty"` // how long a caller over the rate is refused altogether
	Max       int           `json:"max,omitempty"`   // requests under way, or leases
}

// Path is the quota's path as it was written.
func (q *Quota) Path() string { return q.Namespace + q.Mount + q.Below }

var names = regexp.MustCompile(`^\w[\w.-]{0,127}$`)

// check refuses a quota that cannot be.
func (q *Quota) check() error {
	invalid := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
	switch {
	case !names.MatchString(q.Name):
		return invalid("a quota's name has up to 128 letters, digits, '_', '-' and '.'")
	case !slices.Contains([]Grouping{ByAddress, Together, ByEntityOrAddress, ByEntityOrTogether}, q.GroupBy):
		return invalid("group_by must be ip, none, entity_then_ip or entity_then_none")
	case strings.Contains(strings.TrimSuffix(q.Below, "*"), "*"):
		return invalid("path: a * stands at the end only")
	case q.Role != "" && q.Below != "":
		return invalid("Quotas cannot contain both a path suffix and a role. If a role is provided, path must be a valid auth mount with a concept of roles")
	}
	switch q.Kind {
	case Rate:
		switch {
		case math.IsNaN(q.Rate) || q.Rate <= 0 || q.Rate > MaxRate:
			return invalid("'rate' is invalid")
		case q.Interval < time.Second || q.Interval > MaxInterval:
			return invalid("'interval' must be between a second and %v", MaxInterval)
		case q.Block < 0 || q.Block > MaxInterval:
			return invalid("'block' is invalid")
		}
	case Concurrency:
		if q.Max < 1 || q.Max > MaxParallel {
			return invalid("'max' must be between 1 and %d", MaxParallel)
		}
	case LeaseCount:
		switch {
		case q.Max < 1 || q.Max > MaxLeases:
			return invalid("'max_leases' must be between 1 and %d", MaxLeases)
		case q.GroupBy != Together:
			return invalid("group_by: leases are counted for all callers together; max_leases_per_entity in sys/quotas/config bounds those of each")
		}
	}
	return nil
}

// same reports whether two quotas bound the same requests.
func (q *Quota) same(o *Quota) bool {
	return q.Kind == o.Kind && q.Path() == o.Path() && q.Role == o.Role && q.GroupBy == o.GroupBy
}

// Config is what holds for all quotas.
type Config struct {
	Exempt  []string `json:"exempt"`             // paths, from the root, that no quota counts; a * at the end is any ending
	Audit   bool     `json:"audit"`              // refusals are synced to the audit log before they are answered
	Headers bool     `json:"headers"`            // answers say what is left
	MaxHeld *int     `json:"max_held,omitempty"` // leases of one holder, 0 for any number; nil is DefaultHeld
}

// Held is how many leases one holder may have, 0 for any number.
func (c *Config) Held() int {
	if c.MaxHeld == nil {
		return DefaultHeld
	}
	return *c.MaxHeld
}

// DefaultExempt are the paths that no quota counts unless it was said otherwise. What
// tells of the server is never counted.
var DefaultExempt = []string{
	"sys/generate-recovery-token/attempt", "sys/generate-recovery-token/update", "sys/generate-root/attempt",
	"sys/generate-root/update", "sys/health", "sys/seal-status", "sys/unseal",
}

// Rows, in the barrier.
const (
	rows      = "core/quotas/"
	quotaRows = rows + "q/" // + kind + "/" + name
	configRow = rows + "config"
)

// Store keeps quotas and what they count.
type Store struct {
	barrier *barrier.Barrier
	now     func() time.Time
	leave   func()
	loading sync.Mutex
	current atomic.Pointer[index]
	share   atomic.Pointer[map[string]float64] // of quotas that count all callers together, by key
}

// index is the quotas as requests find them.
type index struct {
	config  Config
	limits  map[string]*limit   // by kind and name
	byMount map[string][]*limit // of requests, by namespace + "\x00" + mount; "" is the whole namespace
	lending map[string][]*limit // of leases, likewise
}

// Open reads the quotas, and follows them.
func Open(ctx context.Context, b *barrier.Barrier) (*Store, error) {
	s := &Store{barrier: b, now: time.Now}
	s.current.Store(&index{})
	s.leave = b.Subscribe(rows, s.load)
	if err := s.load(ctx); err != nil {
		s.leave()
		return nil, err
	}
	return s, nil
}

// Close ends following.
func (s *Store) Close() { s.leave() }

func key(kind Kind, name string) string { return string(kind) + "/" + name }

// load makes the index of the rows. What a quota counted stays, unless it was changed.
func (s *Store) load(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	next := &index{config: Config{Exempt: DefaultExempt}, limits: map[string]*limit{}, byMount: map[string][]*limit{}, lending: map[string][]*limit{}}
	old := s.current.Load()
	if err := s.barrier.View(ctx, func(r storage.Reader) error {
		c, err := storage.Load[Config](r, configRow)
		if err != nil {
			return err
		}
		if c != nil {
			next.config = *c
		}
		return storage.All(r, quotaRows, func(e storage.Entry) error {
			q, err := storage.Decode[Quota](e.Key, e.Value, nil)
			if err != nil {
				return err
			}
			next.limits[key(q.Kind, q.Name)] = newLimit(*q)
			return nil
		})
	}); err != nil {
		return err
	}
	for k, l := range next.limits {
		if was := old.limits[k]; was != nil && was.Quota == l.Quota {
			next.limits[k] = was
			l = was
		}
		at := l.Namespace + "\x00" + l.Mount
		if l.Kind == LeaseCount {
			next.lending[at] = append(next.lending[at], l)
			continue
		}
		next.byMount[at] = append(next.byMount[at], l)
	}
	s.current.Store(next)
	return nil
}

// Put writes a quota. Another one that bounds the same requests is refused.
func (s *Store) Put(ctx context.Context, q Quota) error {
	if err := q.check(); err != nil {
		return err
	}
	return s.update(ctx, func(t storage.Txn) error {
		n := 0
		err := storage.All(t, quotaRows, func(e storage.Entry) error {
			o, err := storage.Decode[Quota](e.Key, e.Value, nil)
			if err != nil {
				return err
			}
			if n++; o.Name != q.Name && o.same(&q) {
				return fault.New(fault.Invalid, "quota rule with similar properties exists under the name %q", o.Name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if n >= MaxQuotas {
			return fault.New(fault.Invalid, "there are %d quotas, which is the limit", n)
		}
		return storage.Save(t, quotaRows+key(q.Kind, q.Name), q)
	})
}

// Delete removes a quota; one that is not there is no error.
func (s *Store) Delete(ctx context.Context, kind Kind, name string) error {
	return s.update(ctx, func(t storage.Txn) error { return t.Delete(quotaRows + key(kind, name)) })
}

// SetConfig writes what holds for all quotas.
func (s *Store) SetConfig(ctx context.Context, c Config) error {
	return s.update(ctx, func(t storage.Txn) error { return storage.Save(t, configRow, c) })
}

func (s *Store) update(ctx context.Context, fn func(storage.Txn) error) error {
	if _, err := s.barrier.Update(ctx, fn); err != nil {
		return err
	}
	return s.load(ctx)
}

// Config returns what holds for all quotas.
func (s *Store) Config() Config { return s.current.Load().config }

// Get returns a quota, nil when there is none.
func (s *Store) Get(kind Kind, name string) *Quota {
	if l := s.current.Load().limits[key(kind, name)]; l != nil {
		return &l.Quota
	}
	return nil
}

// List returns the quotas of a kind, in the order of their names.
func (s *Store) List(kind Kind) []Quota {
	var all []Quota
	for _, l := range s.current.Load().limits {
		if l.Kind == kind {
			all = append(all, l.Quota)
		}
	}
	slices.SortFunc(all, func(a, b Quota) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Refused counts the requests that each quota refused on this node.
func (s *Store) Refused() map[string]uint64 {
	out := map[string]uint64{}
	for k, l := range s.current.Load().limits {
		out[k] = l.refused.Load()
	}
	return out
}

// Follow removes the quotas of a mount that is gone, or gives them to the path that it
// was moved to.
func (s *Store) Follow(ctx context.Context, namespace, mount, movedTo string) error {
	for _, l := range s.current.Load().limits {
		if l.Namespace != namespace || l.Mount != mount || mount == "" {
			continue
		}
		if err := s.update(ctx, func(t storage.Txn) error {
			if movedTo == "" {
				return t.Delete(quotaRows + key(l.Kind, l.Name))
			}
			q := l.Quota
			q.Mount = movedTo
			return storage.Save(t, quotaRows+key(l.Kind, l.Name), q)
		}); err != nil {
			return err
		}
	}
	return nil
}
