package storagetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/cofferhq/coffer/internal/storage"
)

// loadWriters is how many write at the same time in the crash tests.
const loadWriters = 8

// sighting is something that somebody outside was told: writer id's commit
// number seq is in the store. A crash must not take it back.
type sighting struct {
	how string // acknowledged, read, watched
	id  int
	seq int
	rev storage.Revision // 0 when unknown
}

// runLoad writes, reads and watches until ctx ends or the store fails, and
// calls note for every sighting, after the call that gave it has returned.
//
// Commit seq of writer id sets state/id/a and state/id/b to seq and adds
// log/id/seq, so a half-applied commit shows.
func runLoad(ctx context.Context, e storage.Engine, note func(sighting)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for id := range loadWriters {
		wg.Go(func() { defer cancel(); write(ctx, e, id, note) })
	}
	for id := range 2 {
		wg.Go(func() { readOne(ctx, e, id, note) })
	}
	wg.Go(func() { readAll(ctx, e, note) })
	wg.Go(func() { readToFail(ctx, e, note) })
	wg.Go(func() { follow(ctx, e, note) })
	wg.Wait()
}

func write(ctx context.Context, e storage.Engine, id int, note func(sighting)) {
	for {
		seq := 0
		rev, err := e.Update(ctx, func(tx storage.Txn) error {
			at, err := readSeq(tx, id, "a")
			seq = at + 1
			text := []byte(strconv.Itoa(seq))
			return errors.Join(err,
				tx.Put(fmt.Sprintf("state/%d/a", id), text),
				tx.Put(fmt.Sprintf("log/%d/%08d", id, seq), make([]byte, 500)),
				tx.Put(fmt.Sprintf("state/%d/b", id), text))
		})
		if err != nil {
			return
		}
		note(sighting{"acknowledged", id, seq, rev})
	}
}

func readSeq(r storage.Reader, id int, part string) (int, error) {
	text, found, err := read(r, fmt.Sprintf("state/%d/%s", id, part))
	if err != nil || !found {
		return 0, err
	}
	return strconv.Atoi(text)
}

// readOne reads single keys, in a View and in an Update that writes nothing.
func readOne(ctx context.Context, e storage.Engine, id int, note func(sighting)) {
	for n := 0; ; n++ {
		seq := 0
		get := func(r storage.Reader) (err error) { seq, err = readSeq(r, id, "b"); return err }
		var err error
		if n%2 == 0 {
			err = e.View(ctx, get)
		} else {
			_, err = e.Update(ctx, func(tx storage.Txn) error { return get(tx) })
		}
		if err != nil {
			return
		}
		note(sighting{"read", id, seq, 0})
	}
}

// readAll reads by range, and the revision.
func readAll(ctx context.Context, e storage.Engine, note func(sighting)) {
	for n := 0; ; n++ {
		var entries []storage.Entry
		var names []string
		var rev storage.Revision
		id := n % loadWriters
		err := e.View(ctx, func(r storage.Reader) (err error) {
			if n%3 == 0 {
				rev = r.Revision()
				return nil
			}
			if n%3 == 1 {
				names, err = r.List(fmt.Sprintf("log/%d/", id), "", 1_000_000)
				return err
			}
			entries, err = r.Scan("state/", "", 1000)
			return err
		})
		if err != nil {
			return
		}
		if rev > 0 {
			note(sighting{"read", 0, 0, rev})
		}
		if len(names) > 0 {
			seq, _ := strconv.Atoi(names[len(names)-1]) // our own names
			note(sighting{"read", id, seq, 0})
		}
		for _, en := range entries {
			var part string
			if _, err := fmt.Sscanf(en.Key, "state/%d/%s", &id, &part); err == nil {
				seq, _ := strconv.Atoi(string(en.Value)) // our own values
				note(sighting{"read", id, seq, 0})
			}
		}
	}
}

// readToFail tells what it read with the error that ends its Update.
func readToFail(ctx context.Context, e storage.Engine, note func(sighting)) {
	for n := 0; ; n++ {
		id, seq := n%loadWriters, 0
		_, err := e.Update(ctx, func(tx storage.Txn) (err error) {
			seq, err = readSeq(tx, id, "a")
			return errors.Join(err, tx.Put("never", nil), errEnough)
		})
		if err == nil || !errors.Is(err, errEnough) {
			return
		}
		note(sighting{"read", id, seq, 0})
	}
}

// follow watches from the present.
func follow(ctx context.Context, e storage.Engine, note func(sighting)) {
	var from storage.Revision
	if err := e.View(ctx, func(r storage.Reader) error { from = r.Revision(); return nil }); err != nil {
		return
	}
	_ = e.Watch(ctx, "state/", from, func(c storage.Commit) error {
		note(sighting{"watched", 0, 0, c.Revision})
		for _, ch := range c.Changes {
			var id int
			if _, err := fmt.Sscanf(ch.Key, "state/%d/a", &id); err == nil {
				seq, _ := strconv.Atoi(string(ch.Value)) // our own values
				note(sighting{"watched", id, seq, c.Revision})
			}
		}
		return nil
	}) // any end of the store ends it
}

// sightings sums up what a load has told.
type sightings struct {
	mu     sync.Mutex
	newest [loadWriters]sighting
	rev    storage.Revision
	counts map[string]int
}

func (s *sightings) note(x sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[x.how]++
	if x.seq > s.newest[x.id].seq {
		s.newest[x.id] = x
	}
	s.rev = max(s.rev, x.rev)
}

// copy returns what has been told up to now.
func (s *sightings) copy() *sightings {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &sightings{newest: s.newest, rev: s.rev, counts: map[string]int{}}
	for how, n := range s.counts {
		c.counts[how] = n
	}
	return c
}

// check returns what a store, opened after a crash, has lost of what was told
// before it, or holds in part.
func (s *sightings) check(e storage.Engine) error {
	return e.View(context.Background(), func(r storage.Reader) error {
		var errs []error
		if r.Revision() < s.rev {
			errs = append(errs, fmt.Errorf("revision %d was seen, %d is left", s.rev, r.Revision()))
		}
		if _, found, err := read(r, "never"); found || err != nil {
			errs = append(errs, fmt.Errorf("a failed Update is in the store (%v)", err))
		}
		for id, seen := range s.newest {
			a, err1 := readSeq(r, id, "a")
			b, err2 := readSeq(r, id, "b")
			errs = append(errs, err1, err2)
			if a != b {
				errs = append(errs, fmt.Errorf("writer %d: a commit is there in part: a is %d, b is %d", id, a, b))
			}
			if a < seen.seq {
				errs = append(errs, fmt.Errorf("writer %d: commit %d was %s, %d is left", id, seen.seq, seen.how, a))
			}
			names, err := r.List(fmt.Sprintf("log/%d/", id), "", 1_000_000)
			errs = append(errs, err)
			if len(names) != a || a > 0 && names[a-1] != fmt.Sprintf("%08d", a) {
				errs = append(errs, fmt.Errorf("writer %d: %d rows in the log after commit %d", id, len(names), a))
			}
		}
		return errors.Join(errs...)
	})
}
