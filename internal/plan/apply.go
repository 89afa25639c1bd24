package plan

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferhq/coffer/client"
)

// Apply makes the changes of a plan, each only where the server still has what the plan
// saw, and remembers each before the next. done is called after each. An error ends it:
// what was done is done and remembered, and a new plan goes on from there.
func (p *Plan) Apply(ctx context.Context, c *client.Client, done func(Change)) error {
	s := &server{client: c}
	for i := range p.Changes {
		change := &p.Changes[i]
		if change.Action == Same || change.Action == Keep {
			continue
		}
		if err := p.make(ctx, s, change); err != nil {
			return fmt.Errorf("%s: %w", change.ID, err)
		}
		done(*change)
	}
	return nil
}

// make does one change and remembers it.
func (p *Plan) make(ctx context.Context, s *server, c *Change) error {
	switch c.Action {
	case Create, Update:
		if err := p.fresh(ctx, s, c); err != nil {
			return err
		}
		if err := c.item.write(ctx, s, c.live); err != nil {
			return err
		}
	case Delete:
		if err := p.fresh(ctx, s, c); err != nil {
			return err
		}
		if err := c.item.remove(ctx, s, c.live); err != nil && !client.IsNotFound(err) {
			return err
		}
		return p.record(ctx, s, nil, []string{c.ID})
	case Forget:
		return p.record(ctx, s, nil, []string{c.ID})
	}
	if err := p.look(ctx, s, c); err != nil {
		return err
	}
	after, err := c.item.read(ctx, s, c.item.fields())
	if err != nil {
		return err
	}
	if !after.there {
		return errors.New("it was written, and is not there: somebody deleted it, or the path keeps nothing")
	}
	put := []remembered{{ID: c.ID, Fingerprint: after.fingerprint, Fields: c.item.fields()}}
	return p.record(ctx, s, put, nil)
}

// fresh refuses a mount that another changed since it was planned. Policies are
// compared by the server itself, and paths right before they are written.
func (p *Plan) fresh(ctx context.Context, s *server, c *Change) error {
	if err := p.look(ctx, s, c); err != nil {
		return err
	}
	if _, ok := c.item.(*mountItem); !ok {
		return nil
	}
	now, err := c.item.read(ctx, s, nil)
	if err == nil && now.fingerprint != c.live.fingerprint {
		err = errors.New("it was changed by another since it was planned; plan anew")
	}
	return err
}

// look reads the mounts again for an item that is one.
func (p *Plan) look(ctx context.Context, s *server, c *Change) error {
	if _, ok := c.item.(*mountItem); ok {
		return s.readMounts(ctx)
	}
	return nil
}

// remembered is an item as the server is told of it.
type remembered struct {
	ID          string   `json:"id"`
	Fingerprint string   `json:"fingerprint"`
	Fields      []string `json:"fields,omitempty"`
}

func (p *Plan) record(ctx context.Context, s *server, put []remembered, remove []string) error {
	body := struct {
		Revision uint64       `json:"revision"`
		Put      []remembered `json:"put,omitempty"`
		Remove   []string     `json:"remove,omitempty"`
	}{p.Revision, put, remove}
	answer, err := s.client.Do(ctx, client.Request{Method: "POST", Path: "sys/policies/applied/" + p.Set, Body: body, WrapTTL: -1})
	if err != nil {
		return err
	}
	var out struct {
		Revision uint64 `json:"revision"`
	}
	if err := answer.Decode(&out); err != nil {
		return err
	}
	p.Revision = out.Revision
	return nil
}
