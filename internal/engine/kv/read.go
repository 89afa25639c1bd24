package kv

import (
	"context"
	"errors"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// ReadRequest names a version of a secret.
type ReadRequest struct {
	Path    string   `path:"path" doc:"Path of the secret."`
	Version wire.Int `query:"version" doc:"Number of the version; 0 or nothing reads the active one."`
	Label   string   `query:"label" doc:"Read the version that this label points at: active, pending, previous or one of the user's own."`
}

// Facts is what is answered about a version beside its data.
type Facts struct {
	Version  uint64      `json:"version" doc:"Number of the version."`
	Created  wire.Time   `json:"created_time" doc:"When it was written."`
	Deletion wire.Time   `json:"deletion_time" doc:"From when on it answers as deleted; empty for never."`
	Gone     bool        `json:"destroyed" doc:"Whether its data was destroyed."`
	Custom   wire.Object `json:"custom_metadata" doc:"The secret's custom metadata, null when there is none."`
	Labels   []string    `json:"labels" doc:"The labels that point at it."`
}

// ReadResponse is a version's data. Data is null, and the status 404, when the
// version is deleted or destroyed.
type ReadResponse struct {
	route.Notes
	Data     wire.Object `json:"data" doc:"The secret."`
	Metadata Facts       `json:"metadata" doc:"About the version."`
}

func (m *meta) facts(v *version) Facts {
	return Facts{
		Version: v.number, Created: wire.Time{Time: v.created}, Deletion: wire.Time{Time: v.deletion},
		Gone: v.destroyed, Custom: m.custom, Labels: m.pointing(v.number),
	}
}

// Read answers a version's data.
func (s *Store) Read(ctx context.Context, by route.Caller, in ReadRequest) (ReadResponse, error) {
	f, err := s.fetch(ctx, by, in.Path, in.Version, in.Label)
	if err != nil {
		return ReadResponse{}, err
	}
	return ReadResponse{f.notes, f.data, f.facts}, nil
}

// fetched is a version that was read. data is nil when it is deleted, destroyed
// or behind an enforced expiry; notes then hold the status.
type fetched struct {
	notes route.Notes
	data  wire.Object
	facts Facts

	id         string // of the secret
	deprecated bool
}

// getter gives rows by their keys.
type getter interface {
	Get(key string) ([]byte, error)
}

// recently gets rows from memory where it can.
type recently struct {
	ctx context.Context
	row func(context.Context, string) ([]byte, error)
}

// Get returns a row as it was at most a second ago.
func (r recently) Get(key string) ([]byte, error) { return r.row(r.ctx, key) }

// fetch reads a version and remembers who read it. Metadata and data may come
// from memory: a version's data never changes, so that they agree, unless it was
// destroyed since; then both are read again from one snapshot.
func (s *Store) fetch(ctx context.Context, by route.Caller, path string, number wire.Int, name string) (*fetched, error) {
	if err := engine.CheckPath(path); err != nil {
		return nil, err
	}
	f, err := find(recently{ctx, s.recent}, path, number, name)
	if fault.Is(err, fault.Internal) {
		err = s.engine.View(ctx, func(r storage.Reader) (err error) {
			f, err = find(r, path, number, name)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	if f.data != nil {
		s.reads.note(path, f.id, by.DisplayName, f.deprecated)
	}
	return f, nil
}

// find reads the version that a request names.
func find(r getter, path string, number wire.Int, name string) (*fetched, error) {
	m, err := loadMeta(r, path)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, route.Missing()
	}
	v, err := m.choose(number, name)
	if err != nil {
		return nil, err
	}
	f := &fetched{}
	f.notes.Subject = route.Subject{Path: path, Version: int(v.number), Label: name}
	if name == "" && number == 0 {
		f.notes.Subject.Label = Active
	}
	return f, f.load(r, m, v)
}

// load reads the data of a version, if it may be read, and says what is to be
// said about it.
func (f *fetched) load(r getter, m *meta, v *version) error {
	at := now()
	f.id, f.deprecated, f.facts = m.id, v.deprecated, m.facts(v)
	expired := !m.expires.IsZero() && !m.expires.After(at)
	if v.state(at) != "" || expired && m.enforce {
		f.notes.Status = fault.NotFound.Status()
		if expired {
			f.notes.Warn("the secret expired at " + m.expires.Format(time.RFC3339) + " and its expiry is enforced; set a later expires_at in its metadata to read it")
		}
		return nil
	}
	val, err := loadValue(r, m.id, v.number)
	if err != nil {
		return missingData(err, f.notes.Subject.Path, v.number)
	}
	f.data, f.notes.Subject.Fingerprint = val.data, val.fingerprint
	if expired {
		f.notes.Warn("the secret expired at " + m.expires.Format(time.RFC3339) + "; replace it, or set a later expires_at in its metadata")
	}
	if v.deprecated {
		f.notes.Warn("this version is deprecated; use the active one")
	}
	return nil
}

// choose finds the version that a request names; none is Missing.
func (m *meta) choose(number wire.Int, name string) (*version, error) {
	switch {
	case number < 0:
		return nil, fault.New(fault.Invalid, "version: it must not be negative")
	case number > 0 && name != "":
		return nil, fault.New(fault.Invalid, "name a version or a label, not both")
	case name == Deprecated:
		return nil, fault.New(fault.Invalid, "label: deprecated marks versions and points at none; read one by its number")
	case number == 0 && name == "":
		number = wire.Int(m.label(Active))
	case number == 0:
		number = wire.Int(m.label(name))
	}
	v := m.version(uint64(number))
	if v == nil || number == 0 {
		return nil, route.Missing()
	}
	return v, nil
}

// missingData says that a version's row is gone although its metadata has it.
func missingData(err error, path string, number uint64) error {
	if errors.Is(err, storage.ErrNotFound) {
		return fault.Wrap(fault.Internal, err, "the data of version %d of %q is missing from storage; restore it from a backup", number, path)
	}
	return err
}
