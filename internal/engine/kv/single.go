package kv

import (
	"bytes"
	"context"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Version 1 of the wire: one value per path, which a write replaces. It is the
// secret's version 1, so that the mount can be opened as version 2.

// SingleRequest is the value of a path: the whole body.
type SingleRequest struct {
	Path string      `path:"path" doc:"Path of the secret."`
	Data wire.Object `json:"data" body:"whole" doc:"The secret: the whole body, any JSON object that is not empty."`
}

// SingleResponse is the value of a path, as it was written.
type SingleResponse struct {
	route.Notes
	data wire.Object
}

// MarshalJSON writes the value.
func (r SingleResponse) MarshalJSON() ([]byte, error) { return r.data.MarshalJSON() }

// ReadSingle answers the value of a path. A member ttl or lease of it is how
// long it should be kept before it is read again.
func (s *Store) ReadSingle(ctx context.Context, by route.Caller, in PathRequest) (SingleResponse, error) {
	f, err := s.fetch(ctx, by, in.Path, 0, "")
	if err != nil {
		return SingleResponse{}, err
	}
	if f.data == nil {
		return SingleResponse{}, route.Missing()
	}
	out := SingleResponse{Notes: f.notes, data: f.data}
	out.Subject.Label = ""
	out.LeaseDuration = s.mount.DefaultTTL
	if out.LeaseDuration == 0 {
		out.LeaseDuration = auth.DefaultLifetime
	}
	for _, name := range []string{"ttl", "lease"} {
		if !bytes.Contains(f.data, []byte(`"`+name+`"`)) {
			continue
		}
		t, err := parseTree(f.data)
		if err != nil {
			return SingleResponse{}, err
		}
		if i, there := t.index()[name]; there {
			var d wire.Seconds
			if d.UnmarshalJSON(t.members[i].tree.append(nil)) == nil && d >= 0 {
				out.LeaseDuration = d.Duration()
			}
			break
		}
	}
	return out, nil
}

// SingleExists reports whether the path has a value.
func (s *Store) SingleExists(ctx context.Context, in SingleRequest) (bool, error) {
	return s.exists(ctx, in.Path)
}

// WriteSingle replaces the value of a path.
func (s *Store) WriteSingle(ctx context.Context, by route.Caller, in SingleRequest) (route.Empty, error) {
	if err := engine.CheckPath(in.Path); err != nil {
		return route.Empty{}, err
	}
	if in.Data == nil {
		return route.Empty{}, errNoFields()
	}
	data, err := s.accept(in.Data)
	if err != nil {
		return route.Empty{}, err
	}
	if string(data) == "{}" {
		return route.Empty{}, errNoFields()
	}
	val := value{fingerprint: s.print(data), by: by.DisplayName, data: data}
	err = s.update(ctx, func(t storage.Txn) error {
		at := now()
		m, err := loadMeta(t, in.Path)
		if err != nil {
			return err
		}
		if m == nil {
			m = newMeta(at)
			if err := m.setAbout(about{CreatedBy: by.DisplayName}); err != nil {
				return err
			}
		}
		if err := m.touch(by.DisplayName); err != nil {
			return err
		}
		m.current, m.newest = 1, 1
		m.labels = []label{{Active, 1}}
		m.versions = []version{{number: 1, created: at}}
		if err := t.Put(dataKey(m.id, 1), val.row()); err != nil {
			return err
		}
		return m.save(t, in.Path)
	})
	return route.Empty{Notes: route.Notes{Subject: route.Subject{
		Path: in.Path, Version: 1, Fingerprint: val.fingerprint,
	}}}, err
}

func errNoFields() error { return fault.New(fault.Invalid, "missing data fields") }
