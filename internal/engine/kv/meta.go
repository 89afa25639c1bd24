package kv

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// The labels that Coffer knows.
const (
	Active     = "active"
	Pending    = "pending"
	Previous   = "previous"
	Deprecated = "deprecated" // a mark on versions, not a pointer
)

// version is what a secret's metadata knows of one version.
type version struct {
	number     uint64
	created    time.Time
	deletion   time.Time // from then on it answers as deleted; zero: never
	destroyed  bool      // its data is gone
	deprecated bool
}

// deleted reports whether the version answers as deleted at now.
func (v *version) deleted(now time.Time) bool { return !v.deletion.IsZero() && !v.deletion.After(now) }

// state says why a version cannot be read, "" when it can.
func (v *version) state(now time.Time) string {
	switch {
	case v.destroyed:
		return "destroyed"
	case v.deleted(now):
		return "deleted"
	}
	return ""
}

// label points at a version.
type label struct {
	name   string
	number uint64
}

// meta is a secret's metadata. What every read needs comes first; about is kept
// as JSON and decoded only when it is asked for.
type meta struct {
	id       string
	expires  time.Time // zero: never
	enforce  bool      // an expired secret answers as deleted
	current  uint64    // the newest number that was ever active
	newest   uint64
	oldest   uint64      // 0 until a version was removed
	labels   []label     // by name
	versions []version   // by number
	custom   wire.Object // custom_metadata as it is answered; nil for none
	created  time.Time
	updated  time.Time
	about    []byte // JSON of an about

	// Room for what most secrets have, so that reading one allocates once.
	fewLabels   [3]label
	fewVersions [DefaultVersions]version
}

// about is the part of the metadata that reads do not need.
type about struct {
	MaxVersions  int               `json:"max_versions,omitempty"`
	CASRequired  bool              `json:"cas_required,omitempty"`
	DeleteAfter  time.Duration     `json:"delete_version_after,omitempty"`
	DestroyAfter time.Duration     `json:"destroy_deleted_after,omitempty"`
	Owner        string            `json:"owner,omitempty"`
	Description  string            `json:"description,omitempty"`
	Kind         string            `json:"kind,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	Validators   *Validators       `json:"validators,omitempty"`
	CreatedBy    string            `json:"created_by,omitempty"`
	UpdatedBy    string            `json:"updated_by,omitempty"`
}

func newMeta(now time.Time) *meta {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return &meta{id: hex.EncodeToString(id[:]), created: now, updated: now}
}

func (m *meta) row() []byte {
	w := make(writer, 0, 256+len(m.custom)+len(m.about)+24*len(m.versions))
	w = append(w, rowFormat)
	w.text(m.id)
	w.time(m.expires)
	w.uint(bit(m.enforce, 0))
	w.uint(m.current)
	w.uint(m.newest)
	w.uint(m.oldest)
	w.uint(uint64(len(m.labels)))
	for _, l := range m.labels {
		w.text(l.name)
		w.uint(l.number)
	}
	w.uint(uint64(len(m.versions)))
	for i := range m.versions {
		v := &m.versions[i]
		w.uint(v.number)
		w.time(v.created)
		w.time(v.deletion)
		w.uint(bit(v.destroyed, 0) | bit(v.deprecated, 1))
	}
	w.text(string(m.custom))
	w.time(m.created)
	w.time(m.updated)
	w.text(string(m.about))
	return w
}

func bit(b bool, shift uint) uint64 {
	if b {
		return 1 << shift
	}
	return 0
}

func parseMeta(row []byte) (*meta, error) {
	p := parseRow(row)
	m := &meta{
		id: p.text(), expires: p.time(), enforce: p.uint() == 1,
		current: p.uint(), newest: p.uint(), oldest: p.uint(),
	}
	// A count is bounded by the bytes left, so that a damaged row cannot make
	// this allocate without bound.
	n := min(p.uint(), uint64(len(p.rest)))
	if m.labels = m.fewLabels[:0]; n > uint64(len(m.fewLabels)) {
		m.labels = make([]label, 0, n)
	}
	for range n {
		m.labels = append(m.labels, label{labelName(p.bytes()), p.uint()})
	}
	n = min(p.uint(), uint64(len(p.rest)))
	if m.versions = m.fewVersions[:0]; n > uint64(len(m.fewVersions)) {
		m.versions = make([]version, 0, n)
	}
	for range n {
		v := version{number: p.uint(), created: p.time(), deletion: p.time()}
		flags := p.uint()
		v.destroyed, v.deprecated = flags&1 != 0, flags&2 != 0
		m.versions = append(m.versions, v)
	}
	m.custom = p.bytes()
	m.created, m.updated = p.time(), p.time()
	m.about = p.bytes()
	return m, p.err
}

// labelName returns the name, without allocating for the usual ones.
func labelName(b []byte) string {
	switch string(b) {
	case Active:
		return Active
	case Previous:
		return Previous
	case Pending:
		return Pending
	}
	return string(b)
}

// loadMeta returns the metadata of the secret at path, nil when there is none.
func loadMeta(r getter, path string) (*meta, error) {
	row, err := r.Get(metaKey(path))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseMeta(row)
}

// save writes the metadata row.
func (m *meta) save(t storage.Txn, path string) error { return t.Put(metaKey(path), m.row()) }

// describe decodes the part that reads do not need.
func (m *meta) describe() (about, error) {
	var a about
	if len(m.about) == 0 {
		return a, nil
	}
	err := json.Unmarshal(m.about, &a)
	return a, err
}

// setAbout encodes it.
func (m *meta) setAbout(a about) error {
	text, err := json.Marshal(a)
	m.about = text
	return err
}

// version returns what is known of a version, nil when it never was or was
// removed.
func (m *meta) version(number uint64) *version {
	// Versions are nearly always consecutive, so its place is nearly known.
	if n := len(m.versions); n > 0 && number >= m.versions[0].number {
		if i := number - m.versions[0].number; i < uint64(n) && m.versions[i].number == number {
			return &m.versions[i]
		}
	}
	i, found := slices.BinarySearchFunc(m.versions, number, func(v version, n uint64) int {
		switch {
		case v.number < n:
			return -1
		case v.number > n:
			return 1
		}
		return 0
	})
	if !found {
		return nil
	}
	return &m.versions[i]
}

// label returns the number a label points at, 0 when it points at none.
func (m *meta) label(name string) uint64 {
	for _, l := range m.labels {
		if l.name == name {
			return l.number
		}
	}
	return 0
}

// point moves a label, or removes it when number is 0.
func (m *meta) point(name string, number uint64) {
	i := slices.IndexFunc(m.labels, func(l label) bool { return l.name >= name })
	if i < 0 {
		i = len(m.labels)
	}
	there := i < len(m.labels) && m.labels[i].name == name
	switch {
	case number == 0 && there:
		m.labels = slices.Delete(m.labels, i, i+1)
	case number == 0:
	case there:
		m.labels[i].number = number
	default:
		m.labels = slices.Insert(m.labels, i, label{name, number})
	}
}

// activate makes a version the one that default reads answer.
func (m *meta) activate(number uint64) {
	if was := m.label(Active); was != number {
		m.point(Previous, was)
		m.point(Active, number)
	}
	if m.label(Pending) == number {
		m.point(Pending, 0)
	}
	m.current = max(m.current, number)
}

// pointing returns the labels that point at a version.
func (m *meta) pointing(number uint64) []string {
	names := make([]string, 0, 1) // nearly always
	for _, l := range m.labels {
		if l.number == number {
			names = append(names, l.name)
		}
	}
	return names
}

// labelMap returns where the labels point, as it is answered.
func (m *meta) labelMap() map[string]uint64 {
	out := make(map[string]uint64, len(m.labels))
	for _, l := range m.labels {
		out[l.name] = l.number
	}
	return out
}

// prune removes the versions beyond the newest keep from the metadata and
// returns the numbers whose data has to go.
func (m *meta) prune(keep uint64) []uint64 {
	if m.newest <= keep || len(m.versions) == 0 || m.versions[0].number > m.newest-keep {
		return nil
	}
	held := func(number uint64) bool {
		for _, l := range m.labels {
			if l.number == number && (l.name != Previous || keep > 1) {
				return true
			}
		}
		return false
	}
	var gone []uint64
	kept := make([]version, 0, len(m.versions))
	for _, v := range m.versions {
		if v.number > m.newest-keep || held(v.number) {
			kept = append(kept, v)
			continue
		}
		if m.label(Previous) == v.number {
			m.point(Previous, 0)
		}
		if !v.destroyed {
			gone = append(gone, v.number)
		}
	}
	m.versions = kept
	m.oldest = kept[0].number
	return gone
}
