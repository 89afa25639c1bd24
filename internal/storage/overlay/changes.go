package overlay

import (
	"slices"
	"sort"
	"strings"

	"github.com/cofferhq/coffer/internal/storage"
)

// layer is a source with changes on top.
type layer struct {
	Source
	over *Changes
}

// Over returns base with changes on top.
func Over(base Source, over *Changes) Source {
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

// Below returns the changes, in key order, whose keys start with prefix.
func Below(changes []storage.Change, prefix string) []storage.Change {
	return within(changes, prefix, EndOf(prefix))
}

func seek(changes []storage.Change, key string) int {
	return sort.Search(len(changes), func(i int) bool { return changes[i].Key >= key })
}

func (l layer) Get(key string) ([]byte, bool, error) {
	if c, ok := l.over.newest[key]; ok {
		return append([]byte{}, c.Value...), !c.Deleted, nil
	}
	return l.Source.Get(key)
}

func (l layer) Scan(from, to string, limit int) ([]storage.Entry, error) {
	changes := within(l.over.Sorted(), from, to)
	// Each change hides one row at most, so limit of what is fetched remain.
	rows, err := l.Source.Scan(from, to, limit+len(changes))
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

func (l layer) Names(prefix, from, to string, limit int) ([]string, error) {
	changes := within(l.over.Sorted(), from, to)
	found, err := l.Source.Names(prefix, from, to, limit+len(changes))
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
			rest, err := l.Scan(key, PastName(prefix, NameOf(prefix, key)), 1)
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
	keys = slices.CompactFunc(keys, func(a, b string) bool { return NameOf(prefix, a) == NameOf(prefix, b) })
	return keys[:min(limit, len(keys))], nil
}

// Changes collects the changes of one or several Updates, the newest of each
// key. The zero value is empty.
type Changes struct {
	newest map[string]storage.Change
	order  []storage.Change // of newest, by key; nil when it must be made
}

// Add puts changes on top.
func (o *Changes) Add(changes []storage.Change) {
	if o.newest == nil {
		o.newest = make(map[string]storage.Change, len(changes))
	}
	for _, c := range changes {
		o.newest[c.Key] = c
	}
	o.order = nil
}

// Sorted returns the changes in key order.
func (o *Changes) Sorted() []storage.Change {
	if o.order == nil {
		o.order = make([]storage.Change, 0, len(o.newest))
		for _, c := range o.newest {
			o.order = append(o.order, c)
		}
		slices.SortFunc(o.order, func(a, b storage.Change) int { return strings.Compare(a.Key, b.Key) })
	}
	return o.order
}

// Span is a range of keys: From is in it, To is not, and an empty To is no bound.
type Span struct{ From, To string }

// Empty says whether no key can be in the span.
func (s Span) Empty() bool { return s.To != "" && s.From >= s.To }

// Holds says whether key is in the span.
func (s Span) Holds(key string) bool { return key >= s.From && (s.To == "" || key < s.To) }

// Reads is what an Update's function has read, and so depends on.
type Reads struct {
	Keys   map[string]struct{}
	Ranges []Span
}

func (r *Reads) addKey(key string) {
	if r.Keys == nil {
		r.Keys = map[string]struct{}{}
	}
	r.Keys[strings.Clone(key)] = struct{}{}
}

func (r *Reads) addRange(s Span) {
	if !s.Empty() && !slices.Contains(r.Ranges, s) {
		r.Ranges = append(r.Ranges, s)
	}
}

// None says whether nothing was read.
func (r *Reads) None() bool { return len(r.Keys) == 0 && len(r.Ranges) == 0 }

// Meets says whether one of the changes touches what was read.
func (r *Reads) Meets(o *Changes) bool {
	if len(o.newest) == 0 {
		return false
	}
	for key := range r.Keys {
		if _, ok := o.newest[key]; ok {
			return true
		}
	}
	for _, s := range r.Ranges {
		if len(within(o.Sorted(), s.From, s.To)) > 0 {
			return true
		}
	}
	return false
}
