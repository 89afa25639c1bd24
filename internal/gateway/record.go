package gateway

import (
	"context"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
)

// intend records that a change is about to be made. Nothing changes before the
// intent is durable.
func (g *Gateway) intend(ctx context.Context, t *turn) error {
	if !t.spec.Changes {
		return nil
	}
	err := g.append(ctx, t.entry(audit.Intent), g.Audit.Append)
	t.intended = err == nil
	return err
}

// record writes the outcome. It must not be given up because the client went
// away: what was done is recorded.
func (g *Gateway) record(ctx context.Context, t *turn, status int, problem *fault.Error) error {
	e := t.entry(audit.Outcome)
	e.Status = status
	e.DurationUS = time.Since(t.begun).Microseconds()
	e.StaleMS = t.stale.Age().Milliseconds()
	e.Subject = audit.Subject(t.notes.Subject)
	if problem != nil {
		e.Error = problem.Message
	}
	write := g.Audit.Append
	switch {
	case t.intended:
		write = g.Audit.AppendDone
	case t.limited && !t.services.Quotas.Config().Audit:
		write = g.Audit.AppendRelaxed // a flood must not cost a sync each
	case g.RelaxedReads && problem == nil && t.spec != nil && !t.spec.Changes:
		write = g.Audit.AppendRelaxed
	}
	return g.append(context.WithoutCancel(ctx), e, write)
}

func (g *Gateway) append(ctx context.Context, e *audit.Entry, write func(context.Context, *audit.Entry) error) error {
	begun := time.Now()
	err := write(ctx, e)
	g.Metrics.AuditWritten(time.Since(begun), err)
	return err
}

// entry is what is known of the request so far.
func (t *turn) entry(kind audit.Type) *audit.Entry {
	e := &audit.Entry{Type: kind, Decision: t.decision}
	e.Request = audit.Request{
		ID: t.ID, Operation: t.operation(), Path: t.Path, Namespace: t.Namespace,
		RemoteAddress: t.Remote.Addr().String(), RemotePort: int(t.Remote.Port()),
		TraceParent: t.Traceparent, CorrelationID: t.Correlation,
		WrapTTL: int64(t.wrapTTL / time.Second), Fields: t.params.Names(), Headers: t.Headers,
	}
	if parts := strings.Split(t.Traceparent, "-"); len(parts) == 4 {
		e.Request.TraceID = parts[1]
	}
	if t.mount != nil {
		e.Request.MountPoint, e.Request.MountType = t.mount.Entry.Path, t.mount.Entry.Type
		e.Request.MountAccessor = t.mount.Entry.Accessor
	}
	if t.token != nil {
		e.Principal = audit.Principal{
			DisplayName: t.token.DisplayName, Accessor: t.token.Accessor, EntityID: t.token.EntityID,
			Policies: t.token.Policies, Identity: t.rights.Identity, TokenType: t.token.Type.String(), Issued: t.token.CreatedAt.UTC().Truncate(time.Second),
		}
		if t.home != nil {
			e.Principal.Namespace = t.home.Namespace.Path
		}
	} else if issued := t.issued(); issued != nil {
		e.Principal.DisplayName, e.Principal.Accessor = issued.Token.DisplayName, issued.Token.Accessor
		e.Principal.Policies, e.Principal.Identity, e.Principal.EntityID = issued.Token.Policies, issued.Identity, issued.Token.EntityID
	}
	return e
}

// operation is Vault's word for what was asked.
func (t *turn) operation() string {
	switch t.Method {
	case "GET":
		return "read"
	case "LIST":
		return "list"
	case "DELETE":
		return "delete"
	case "PATCH":
		return "patch"
	case "POST":
		if t.need == policy.Create {
			return "create"
		}
		return "update"
	}
	return strings.ToLower(t.Method)
}
