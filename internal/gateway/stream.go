package gateway

import (
	"context"
	"io"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// stream ends the life of a request whose body is made while it leaves. The last
// bytes leave only once the outcome is in the audit log, so that no client has a
// whole body that the log does not tell of. A live body is whole at any time; of that
// the log tells by the intent.
func (g *Gateway) stream(t *turn, out route.Stream) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		defer t.leave()
		defer g.inFlight.Delete(t.Request)
		last := &withheld{out: w}
		if !out.Live {
			w = last
		}
		subject, err := out.Write(ctx, w)
		t.notes.Subject = subject
		status := t.status()
		var problem *fault.Error
		if err != nil {
			problem = fault.From(named(err))
			status = problem.Kind.Status()
		}
		recorded := g.record(ctx, t, status, problem)
		if err == nil {
			err = recorded
		}
		g.count(t, status)
		if err == nil {
			return last.release()
		}
		if problem == nil || problem.Kind.Status() >= 500 {
			g.Log.Error("an answer broke off", "request_id", t.ID, "operation", t.Method, "path", t.Path, "error", err)
		}
		if problem != nil {
			return problem
		}
		return err
	}
}

// status is what a request that went well is answered with.
func (t *turn) status() int {
	if t.notes.Status != 0 {
		return t.notes.Status
	}
	return 200
}

// withheld passes on what it is given, all but the last bytes.
type withheld struct {
	out  io.Writer
	last []byte
}

// keptBack is how many bytes at least are withheld.
const keptBack = 32

func (h *withheld) Write(b []byte) (int, error) {
	if len(b) < keptBack {
		h.last = append(h.last, b...)
		if n := len(h.last) - keptBack; n > 0 {
			if _, err := h.out.Write(h.last[:n]); err != nil {
				return 0, err
			}
			h.last = append(h.last[:0], h.last[n:]...)
		}
		return len(b), nil
	}
	if len(h.last) > 0 {
		if _, err := h.out.Write(h.last); err != nil {
			return 0, err
		}
	}
	cut := len(b) - keptBack
	h.last = append(h.last[:0], b[cut:]...)
	if cut == 0 {
		return len(b), nil
	}
	n, err := h.out.Write(b[:cut])
	if err != nil {
		return n, err
	}
	return len(b), nil
}

// release writes the last bytes.
func (h *withheld) release() error {
	_, err := h.out.Write(h.last)
	return err
}
