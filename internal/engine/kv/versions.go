package kv

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// PathRequest names a secret or a folder.
type PathRequest struct {
	Path string `path:"path" doc:"Path of the secret."`
}

// VersionsRequest names versions of a secret.
type VersionsRequest struct {
	Path     string   `path:"path" doc:"Path of the secret."`
	Versions Versions `json:"versions" doc:"Numbers of the versions."`
}

// Versions is a list of version numbers, as a list or a comma-separated string.
type Versions []wire.Int

// UnmarshalJSON accepts a list of numbers, a number, or "1,2".
func (v *Versions) UnmarshalJSON(b []byte) error {
	var texts wire.Strings
	if err := texts.UnmarshalJSON(b); err != nil {
		return err
	}
	*v = nil
	for _, text := range texts {
		var n wire.Int
		if err := n.UnmarshalJSON([]byte(text)); err != nil {
			return err
		}
		*v = append(*v, n)
	}
	return nil
}

// Delete marks the active version deleted, from now on.
func (s *Store) Delete(ctx context.Context, _ route.Caller, in PathRequest) (route.Empty, error) {
	return s.alter(ctx, in.Path, func(_ storage.Txn, m *meta) ([]uint64, error) {
		return []uint64{m.label(Active)}, nil
	}, s.markDeleted)
}

// DeleteVersions marks versions deleted, from now on.
func (s *Store) DeleteVersions(ctx context.Context, _ route.Caller, in VersionsRequest) (route.Empty, error) {
	return s.alter(ctx, in.Path, in.numbers, s.markDeleted)
}

// Undelete makes deleted versions readable again, and takes away the time at
// which they would have been deleted.
func (s *Store) Undelete(ctx context.Context, _ route.Caller, in VersionsRequest) (route.Empty, error) {
	return s.alter(ctx, in.Path, in.numbers, func(_ storage.Txn, _ string, _ *meta, v *version) error {
		if !v.destroyed {
			v.deletion = time.Time{}
		}
		return nil
	})
}

// Destroy removes versions' data for good.
func (s *Store) Destroy(ctx context.Context, _ route.Caller, in VersionsRequest) (route.Empty, error) {
	return s.alter(ctx, in.Path, in.numbers, func(_ storage.Txn, _ string, _ *meta, v *version) error {
		v.destroyed = true
		return nil
	})
}

func (in VersionsRequest) numbers(storage.Txn, *meta) ([]uint64, error) {
	switch {
	case len(in.Versions) == 0:
		return nil, fault.New(fault.Invalid, "no version number provided")
	case len(in.Versions) > MaxVersions:
		return nil, fault.New(fault.Invalid, "versions: at most %d can be named at once", MaxVersions)
	}
	numbers := make([]uint64, len(in.Versions))
	for i, n := range in.Versions {
		if n < 0 {
			return nil, errNegative("versions")
		}
		numbers[i] = uint64(n)
	}
	return numbers, nil
}

// markDeleted makes a version answer as deleted and schedules the end of its
// data. One that is deleted already keeps its time.
func (s *Store) markDeleted(t storage.Txn, path string, m *meta, v *version) error {
	at := now()
	if v.state(at) != "" {
		return nil
	}
	v.deletion = at
	settings, err := loadConfig(t)
	if err != nil {
		return err
	}
	a, err := m.describe()
	if err != nil {
		return err
	}
	return schedule(t, path, m.id, v, settings.destroyAfter(a))
}

// alter changes versions of a secret in one transaction, and discards the data
// of those that fn destroys. A secret or version that does not exist is passed
// over, as in Vault.
func (s *Store) alter(ctx context.Context, path string, which func(storage.Txn, *meta) ([]uint64, error), fn func(storage.Txn, string, *meta, *version) error) (route.Empty, error) {
	var out route.Empty
	var untidy bool
	if err := engine.CheckPath(path); err != nil {
		return out, err
	}
	err := s.update(ctx, func(t storage.Txn) error {
		m, err := loadMeta(t, path)
		if err != nil {
			return err
		}
		if m == nil {
			_, err := which(t, &meta{})
			return err
		}
		numbers, err := which(t, m)
		if err != nil {
			return err
		}
		out.Subject = route.Subject{Path: path}
		var destroyed []uint64
		for _, n := range numbers {
			v := m.version(n)
			if v == nil {
				continue
			}
			out.Subject.Version = int(n)
			had := !v.destroyed
			if err := fn(t, path, m, v); err != nil {
				return err
			}
			if had && v.destroyed {
				destroyed = append(destroyed, n)
			}
		}
		if untidy, err = s.discard(t, m.id, destroyed); err != nil {
			return err
		}
		m.updated = now()
		return m.save(t, path)
	})
	if untidy {
		s.tidySoon()
	}
	return out, err
}
