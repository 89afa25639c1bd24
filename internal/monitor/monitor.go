// Package monitor lets operators listen to the server's log while it is written, at
// a level of their own. The log itself goes where it went before, first and whole;
// listeners get copies, and who cannot keep up loses lines. It filters nothing: what
// is secret is never logged in the first place.
package monitor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Limits of listening.
const (
	MaxListeners = 8
	Buffered     = 512     // lines that wait for a listener
	MaxLine      = 8 << 10 // bytes of a line; the rest is cut off
)

// Tap is a slog.Handler that passes everything on, and copies to listeners.
type Tap struct {
	base slog.Handler
	hub  *hub
	// steps make of a listener's handler what base was made by WithAttrs and WithGroup.
	steps []func(slog.Handler) slog.Handler
}

// hub is what all handlers derived from one have in common.
type hub struct {
	mu        sync.Mutex
	listeners atomic.Pointer[[]*Listener]
	lowest    atomic.Int64 // level that any listener wants
	ended     bool
}

// New returns a tap on what is logged through base.
func New(base slog.Handler) *Tap {
	t := &Tap{base: base, hub: &hub{}}
	t.hub.set(nil)
	return t
}

// Enabled implements slog.Handler.
func (t *Tap) Enabled(ctx context.Context, level slog.Level) bool {
	return int64(level) >= t.hub.lowest.Load() || t.base.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (t *Tap) Handle(ctx context.Context, r slog.Record) (err error) {
	if t.base.Enabled(ctx, r.Level) {
		err = t.base.Handle(ctx, r.Clone())
	}
	for _, l := range *t.hub.listeners.Load() {
		if r.Level >= l.level {
			l.take(ctx, r.Clone(), t.steps)
		}
	}
	return err
}

// WithAttrs implements slog.Handler.
func (t *Tap) WithAttrs(attrs []slog.Attr) slog.Handler {
	return t.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (t *Tap) WithGroup(name string) slog.Handler {
	return t.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (t *Tap) with(step func(slog.Handler) slog.Handler) *Tap {
	return &Tap{base: step(t.base), hub: t.hub, steps: append(slices.Clip(t.steps), step)}
}

// Listener gets a copy of what is logged.
type Listener struct {
	hub   *hub
	level slog.Level
	json  bool
	lines chan []byte
	ended chan struct{}
	lost  atomic.Uint64
}

// Listen returns a listener to what is logged at a level and above, nil when there
// are MaxListeners already or the tap is closed.
func (t *Tap) Listen(level slog.Level, json bool) *Listener {
	h := t.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	now := *h.listeners.Load()
	if h.ended || len(now) >= MaxListeners {
		return nil
	}
	l := &Listener{hub: h, level: level, json: json, lines: make(chan []byte, Buffered), ended: make(chan struct{})}
	h.set(append(slices.Clip(now), l))
	return l
}

// Close ends all listeners, and takes no more.
func (t *Tap) Close() {
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	t.hub.ended = true
	for _, l := range *t.hub.listeners.Load() {
		close(l.ended)
	}
	t.hub.set(nil)
}

// set replaces the listeners. The caller holds the lock, or is alone.
func (h *hub) set(listeners []*Listener) {
	lowest := int64(math.MaxInt64)
	for _, l := range listeners {
		lowest = min(lowest, int64(l.level))
	}
	h.listeners.Store(&listeners)
	h.lowest.Store(lowest)
}

// Lines gives the lines, each with its end.
func (l *Listener) Lines() <-chan []byte { return l.lines }

// Ended is closed when the tap is.
func (l *Listener) Ended() <-chan struct{} { return l.ended }

// Lost returns how many lines were lost since it was last asked.
func (l *Listener) Lost() uint64 { return l.lost.Swap(0) }

// Close ends the listening.
func (l *Listener) Close() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	now := *l.hub.listeners.Load()
	if i := slices.Index(now, l); i >= 0 {
		l.hub.set(slices.Delete(slices.Clone(now), i, i+1))
	}
}

// take writes a record as a line, and loses it rather than wait.
func (l *Listener) take(ctx context.Context, r slog.Record, steps []func(slog.Handler) slog.Handler) {
	var line bytes.Buffer
	var h slog.Handler
	options := &slog.HandlerOptions{Level: l.level}
	if l.json {
		h = slog.NewJSONHandler(&line, options)
	} else {
		h = slog.NewTextHandler(&line, options)
	}
	for _, step := range steps {
		h = step(h)
	}
	if err := h.Handle(ctx, r); err != nil {
		l.lost.Add(1)
		return
	}
	select {
	case l.lines <- l.cut(line.Bytes()):
	default:
		l.lost.Add(1)
	}
}

// cut bounds a line. What is left of one in JSON is none any more, so it is told of
// in its place.
func (l *Listener) cut(line []byte) []byte {
	switch {
	case len(line) <= MaxLine:
		return line
	case l.json:
		return fmt.Appendf(nil, `{"msg":"a line of %d bytes is left out here; the server's own log has it"}`+"\n", len(line))
	}
	return append(bytes.ToValidUTF8(line[:MaxLine-1], nil), '\n')
}
