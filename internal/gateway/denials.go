package gateway

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/token"
)

// MaxDenials is how many denials of this node can still be explained.
const MaxDenials = 4096

// Denial is a refused request, kept so that someone who may ask is told why.
type Denial struct {
	RequestID string
	Time      time.Time
	Namespace string // path of the one that the request went to
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
	if n.Asked.Facts != nil {
		known := n.Asked.Facts()
		n.Asked.Facts = func() *policy.Facts { return known }
	}
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

// Why returns the denial of a request on this node, if it went to a namespace, by
// its path, or below it.
func (g *Gateway) Why(requestID, namespace string) (*Denial, error) {
	g.denials.mu.Lock()
	defer g.denials.mu.Unlock()
	if d := g.denials.byID[requestID]; d != nil && strings.HasPrefix(d.Namespace, namespace) {
		return d, nil
	}
	return nil, fault.New(fault.NotFound, "no denied request %q is remembered by this node, which keeps the newest %d; the audit log has the decision", requestID, MaxDenials)
}

// RightsOf returns what the holder of a token may do in a namespace, by its id.
func (g *Gateway) RightsOf(ctx context.Context, tok *token.Token, namespace string) (route.Rights, error) {
	services := g.services.Load()
	if services == nil {
		return nil, errSealed()
	}
	home, there := services.Realms.Of(tok.Namespace), services.Realms.Of(namespace)
	if home == nil || there == nil || !home.Namespace.Contains(there.Namespace) {
		return asked{acl: policy.Compile()}, nil
	}
	rights, err := home.Access.Of(ctx, tok)
	return asked{rights.ACL, there.Mounts, strings.TrimPrefix(there.Namespace.Path, home.Namespace.Path), nil}, err
}
