package postgres

import (
	"sort"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/overlay"
)

// maxKnown bounds how many changed keys a validator remembers, and how many it
// catches up with.
const maxKnown = 1 << 16

// validator knows which keys the newest commits changed, up to head. It belongs
// to the committer.
type validator struct {
	head  point
	chain map[storage.Revision]string // the points that a snapshot can be at and be judged
	keys  []changed                   // what changed after the oldest of chain, in order of revision
	last  map[string]storage.Revision // the newest change of each of keys
}

type changed struct {
	rev storage.Revision
	key string
}

// reset forgets everything: the history before head is not known.
func (v *validator) reset(head point) {
	*v = validator{
		head:  head,
		chain: map[storage.Revision]string{head.rev: head.batch},
		last:  map[string]storage.Revision{},
	}
}

// change records that a commit after head changed a key.
func (v *validator) change(rev storage.Revision, key string) {
	v.keys = append(v.keys, changed{rev, key})
	v.last[key] = rev
}

// advance moves head to p, all of whose changes have been recorded.
func (v *validator) advance(p point) {
	v.head = p
	v.chain[p.rev] = p.batch
	if len(v.keys) > maxKnown || len(v.chain) > maxKnown {
		v.forget(v.head.rev - (v.head.rev-v.oldest())/2)
	}
}

func (v *validator) oldest() storage.Revision {
	oldest := v.head.rev
	for rev := range v.chain {
		oldest = min(oldest, rev)
	}
	return oldest
}

// forget drops what is known of commits up to rev.
func (v *validator) forget(rev storage.Revision) {
	for at := range v.chain {
		if at < rev {
			delete(v.chain, at)
		}
	}
	n := v.after(rev)
	for _, c := range v.keys[:n] {
		if v.last[c.key] <= rev {
			delete(v.last, c.key)
		}
	}
	v.keys = append([]changed(nil), v.keys[n:]...)
}

func (v *validator) after(rev storage.Revision) int {
	return sort.Search(len(v.keys), func(i int) bool { return v.keys[i].rev > rev })
}

// holds says whether what was read at p is still what a reader would find at
// the head.
func (v *validator) holds(r *overlay.Reads, p point) bool {
	if r.None() {
		return true
	}
	if batch, ok := v.chain[p.rev]; !ok || batch != p.batch {
		return false
	}
	for key := range r.Keys {
		if v.last[key] > p.rev {
			return false
		}
	}
	if len(r.Ranges) == 0 {
		return true
	}
	for _, c := range v.keys[v.after(p.rev):] {
		for _, s := range r.Ranges {
			if s.Holds(c.key) {
				return false
			}
		}
	}
	return true
}
