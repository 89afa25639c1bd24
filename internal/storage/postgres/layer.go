package postgres

import (
	"slices"
	"sort"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// layer is a source with changes on top.
type layer struct {
	source
	over *overlay
}

func layered(base source, over *overlay) source {
	if len(over.newest) == 0 {
		return base
	}
	return layer{base, over}
}

// within returns the changes with from <= key < to; an empty to is no bound.
func within(changes []storage.Change, from, to string) []storage.Change {
	first := seek(changes, from)
	if to == "" {
		return changes[first:]
	}
	return changes[first:max(first, seek(changes, to))]
}

func seek(changes []storage.Change, key string) int {
	return sort.Search(len(changes), func(i int) bool { return changes[i].Key >= key })
}

func (l layer) get(key string) ([]byte, bool, error) {
	if c, ok := l.over.newest[key]; ok {
		return append([]byte{}, c.Value...), !c.Deleted, nil
	}
	return l.source.get(key)
}

func (l layer) scan(from, to string, limit int) ([]storage.Entry, error) {
	changes := within(l.over.sorted(), from, to)
	// Each change hides one row at most, so limit of what is fetched remain.
	rows, err := l.source.scan(from, to, limit+len(changes))
	if err != nil || len(changes) == 0 {
		return rows, err
	}
	var entries []storage.Entry
	for len(entries) < limit && (len(rows) > 0 || len(changes) > 0) {
		if len(changes) == 0 || len(rows) > 0 && rows[0].Key < changes[0].Key {
			entries, rows = append(entries, rows[0]), rows[1:]
			continue
		}
		if len(rows) > 0 && rows[0].Key == changes[0].Key {
			rows = rows[1:]
		}
		if c := changes[0]; !c.Deleted {
			entries = append(entries, storage.Entry{Key: c.Key, Value: append([]byte{}, c.Value...)})
		}
		changes = changes[1:]
	}
	return entries, nil
}

func (l layer) names(prefix, from, to string, limit int) ([]string, error) {
	changes := within(l.over.sorted(), from, to)
	found, err := l.source.names(prefix, from, to, limit+len(changes))
	if err != nil || len(changes) == 0 {
		return found, err
	}
	keys := make([]string, 0, len(found)+len(changes))
	for _, c := range changes {
		if !c.Deleted {
			keys = append(keys, c.Key)
		}
	}
	for _, key := range found {
		// A name whose first key is deleted may have another.
		if i := seek(changes, key); i < len(changes) && changes[i].Key == key && changes[i].Deleted {
			rest, err := l.scan(key, pastName(prefix, nameOf(prefix, key)), 1)
			if err != nil {
				return nil, err
			}
			if len(rest) == 0 {
				continue
			}
			key = rest[0].Key
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	keys = slices.CompactFunc(keys, func(a, b string) bool { return nameOf(prefix, a) == nameOf(prefix, b) })
	return keys[:min(limit, len(keys))], nil
}

// overlay collects the changes of one or several Updates, the newest of each
// key. The zero value is empty.
type overlay struct {
	newest map[string]storage.Change
	order  []storage.Change // of newest, by key; nil when it must be made
}

func (o *overlay) add(changes []storage.Change) {
	if o.newest == nil {
		o.newest = make(map[string]storage.Change, len(changes))
	}
	for _, c := range changes {
		o.newest[c.Key] = c
	}
	o.order = nil
}

// sorted returns the changes in key order.
func (o *overlay) sorted() []storage.Change {
	if o.order == nil {
		o.order = make([]storage.Change, 0, len(o.newest))
		for _, c := range o.newest {
			o.order = append(o.order, c)
		}
		slices.SortFunc(o.order, func(a, b storage.Change) int { return strings.Compare(a.Key, b.Key) })
	}
	return o.order
}

// span is a range of keys: from is in it, to is not, and an empty to is no bound.
type span struct{ from, to string }

func (s span) empty() bool { return s.to != "" && s.from >= s.to }

func (s span) holds(key string) bool { return key >= s.from && (s.to == "" || key < s.to) }

// reads is what an Update's function has read, and so depends on.
type reads struct {
	keys   map[string]struct{}
	ranges []span
}

func (r *reads) addKey(key string) {
	if r.keys == nil {
		r.keys = map[string]struct{}{}
	}
	r.keys[strings.Clone(key)] = struct{}{}
}

func (r *reads) addRange(s span) {
	if !s.empty() && !slices.Contains(r.ranges, s) {
		r.ranges = append(r.ranges, s)
	}
}

func (r *reads) none() bool { return len(r.keys) == 0 && len(r.ranges) == 0 }

// meets says whether one of the changes touches what was read.
func (r *reads) meets(o *overlay) bool {
	if len(o.newest) == 0 {
		return false
	}
	for key := range r.keys {
		if _, ok := o.newest[key]; ok {
			return true
		}
	}
	for _, s := range r.ranges {
		if len(within(o.sorted(), s.from, s.to)) > 0 {
			return true
		}
	}
	return false
}
