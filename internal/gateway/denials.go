package gateway

import (
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
)

// MaxDenials is how many denials of this node can still be explained.
const MaxDenials = 4096

// Denial is a refused request, kept so that someone who may ask is told why.
type Denial struct {
	RequestID string
	Time      time.Time
	Principal string
	Accessor  string
	Policies  []string
	Asked     policy.Request
	Decision  policy.Decision

	acl *policy.ACL
}

// Explain weighs every rule that was in force when the request was refused.
func (d *Denial) Explain() policy.Explanation { return d.acl.Explain(d.Asked) }

// denials is a ring of the newest denials.
type denials struct {
	mu   sync.Mutex
	ring [MaxDenials]*Denial
	next int
	byID map[string]*Denial
}

func (d *denials) remember(n *Denial) {
	n.Asked.Params = nil // a secret's text must not outlive its request
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byID == nil {
		d.byID = map[string]*Denial{}
	}
	if old := d.ring[d.next]; old != nil {
		delete(d.byID, old.RequestID)
	}
	d.ring[d.next], d.byID[n.RequestID] = n, n
	d.next = (d.next + 1) % MaxDenials
}

// Why returns the denial of a request on this node.
func (g *Gateway) Why(requestID string) (*Denial, error) {
	g.denials.mu.Lock()
	defer g.denials.mu.Unlock()
	if d := g.denials.byID[requestID]; d != nil {
		return d, nil
	}
	return nil, fault.New(fault.NotFound, "no denied request %q is remembered by this node, which keeps the newest %d; the audit log has the decision", requestID, MaxDenials)
}
