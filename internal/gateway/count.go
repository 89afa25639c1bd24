package gateway

import (
	"reflect"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
)

var loginType = reflect.TypeFor[auth.Login]()

// count tells the metrics of an answered request.
func (g *Gateway) count(t *turn, status int) {
	name, method := "none", t.Method
	if t.spec != nil {
		name = "system/" + t.spec.Pattern
		if t.mount != nil {
			name = t.mount.Spec.Name + "/" + t.spec.Pattern
		}
	}
	switch method {
	case "GET", "LIST", "POST", "PATCH", "DELETE":
	default:
		method = "other"
	}
	g.Metrics.Finish(name, method, status, time.Since(t.begun))
	if t.decision != nil && !t.decision.Allowed {
		g.Metrics.Denied(t.reason())
	}
	if issued := t.issued(); issued != nil && status < 300 {
		g.Metrics.TokenCreated(issued.Token.Type.String())
	}
	if t.mount == nil || t.spec == nil {
		return
	}
	if t.mount.Entry.Class == engine.Auth && t.spec.Response == loginType {
		g.Metrics.LoggedIn(t.mount.Spec.Name, status < 300)
	}
	if t.mount.Entry.Class == engine.Secret && t.spec.Changes && status < 300 {
		g.Metrics.Changed(t.change())
	}
}

// reason is why a request was refused, in one of a few words.
func (t *turn) reason() string {
	switch {
	case t.Token == "":
		return "no_token"
	case t.token == nil:
		return "bad_token"
	}
	return "policy"
}

// change names what a request did to a secret, by its route.
func (t *turn) change() string {
	switch verb, _, _ := strings.Cut(t.spec.Pattern, "/"); verb {
	case "delete", "undelete", "destroy", "metadata", "promote", "rollback":
		return verb
	}
	if t.Method == "DELETE" {
		return "delete"
	}
	return "write"
}

// Running is a request under way.
type Running struct {
	*Request
	Since time.Time
}

// InFlight lists the requests under way, in no order.
func (g *Gateway) InFlight() []Running {
	var out []Running
	g.inFlight.Range(func(r, since any) bool {
		out = append(out, Running{r.(*Request), since.(time.Time)})
		return true
	})
	return out
}

// uncounted counts nothing.
type uncounted struct{}

func (uncounted) Begin()                                    {}
func (uncounted) Finish(string, string, int, time.Duration) {}
func (uncounted) Denied(string)                             {}
func (uncounted) Changed(string)                            {}
func (uncounted) LoggedIn(string, bool)                     {}
func (uncounted) TokenCreated(string)                       {}
func (uncounted) TokenLookedUp()                            {}
func (uncounted) AuditWritten(time.Duration, error)         {}
