package job

import "time"

const (
	// MaxSkew is how far a node's clock may be off before it does not go by it.
	MaxSkew = 2 * time.Second
	// Settle is how long it takes at most until a node knows how far its clock is
	// off after it has joined others or its clock has jumped: some beats of theirs.
	Settle = 10 * time.Second
)

// clock tells when the wall clock jumps.
type clock struct {
	known bool
	drift time.Duration // the wall clock less mono
	since time.Duration // when it jumped last, by mono
}

// now returns the time that due times are compared with. It is false while it
// cannot be known.
func (w *Workers) now() (time.Time, bool) {
	wall, offset := w.Wall(), w.Offset()
	w.mu.Lock()
	defer w.mu.Unlock()
	mono := w.mono()
	drift := time.Duration(wall.UnixNano()) - mono
	if !w.clock.known || (drift-w.clock.drift).Abs() > MaxSkew {
		w.clock.known, w.clock.since = true, mono
	}
	w.clock.drift = drift
	if offset.Abs() > MaxSkew {
		wall = wall.Add(-offset)
	}
	settled := mono-w.clock.since >= min(Settle, w.Takeover())
	return wall, w.joined && (settled || len(w.peers) == 0)
}
