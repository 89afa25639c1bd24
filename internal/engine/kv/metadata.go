package kv

import (
	"context"
	"strconv"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Settings are what is kept about a secret beside its versions; what is not
// sent stays as it is, and null takes it back to its default.
type Settings struct {
	Path         string        `path:"path" doc:"Path of the secret."`
	MaxVersions  *wire.Int     `json:"max_versions" body:"resets" doc:"How many versions are kept; 0 is the mount's number, at most 1000."`
	CASRequired  *wire.Bool    `json:"cas_required" body:"resets" doc:"Whether every write must carry options.cas."`
	DeleteAfter  *wire.Seconds `json:"delete_version_after" body:"resets" doc:"How long after it is written a version answers as deleted; 0 is the mount's time."`
	DestroyAfter *wire.Seconds `json:"destroy_deleted_after" body:"resets" doc:"How long after its deletion a version's data is destroyed for good; 0 is the mount's time."`
	Owner        *string       `json:"owner" body:"resets" doc:"Who answers for the secret."`
	Description  *string       `json:"description" body:"resets" doc:"What it is for."`
	Kind         *string       `json:"kind" body:"resets" doc:"What it is, for example database-password or api-key."`
	Expires      *wire.Time    `json:"expires_at" body:"resets" doc:"When it stops being good; empty for never."`
	Expiry       *string       `json:"expiry" body:"resets" doc:"What a read after expires_at does: warn (the default), or enforce, which answers as if it were deleted."`
}

// MetadataRequest sets what is kept about a secret.
type MetadataRequest struct {
	Settings
	Custom     *wire.Object `json:"custom_metadata" body:"resets" doc:"Up to 64 names and values of the user's own; replaces those there are."`
	Tags       Tags         `json:"tags" doc:"Up to 64 names and values by which the secret is found; replaces those there are."`
	Validators *Validators  `json:"validators" doc:"Rules that data must keep before it is stored; replaces those there are, and {} lifts the mount's."`
}

// MetadataPatchRequest changes what is kept about a secret.
type MetadataPatchRequest struct {
	Settings
	Custom     *wire.Object `json:"custom_metadata" body:"resets" doc:"Merged into those there are; null removes a name, and null for the whole removes all."`
	Tags       Tags         `json:"tags" doc:"Merged into those there are; null removes a name."`
	Validators wire.Object  `json:"validators" doc:"Merged into those there are; null removes a rule."`
}

// VersionFacts is what metadata answers about one version.
type VersionFacts struct {
	Created    wire.Time `json:"created_time" doc:"When it was written."`
	Deletion   wire.Time `json:"deletion_time" doc:"From when on it answers as deleted; empty for never."`
	Gone       bool      `json:"destroyed" doc:"Whether its data was destroyed."`
	Deprecated bool      `json:"deprecated" doc:"Whether reads of it warn."`
}

// MetadataResponse is what is known of a secret.
type MetadataResponse struct {
	route.Notes
	Versions        map[string]VersionFacts `json:"versions" doc:"What is known of each version, by its number."`
	Current         uint64                  `json:"current_version" doc:"The newest version that was ever active."`
	Newest          uint64                  `json:"newest_version" doc:"The newest version, staged ones included."`
	Oldest          uint64                  `json:"oldest_version" doc:"The oldest version kept, 0 until one was removed."`
	Created         wire.Time               `json:"created_time" doc:"When the secret was first written."`
	Updated         wire.Time               `json:"updated_time" doc:"When it was last changed."`
	MaxVersions     int                     `json:"max_versions" doc:"How many versions are kept; 0 is the mount's number."`
	CASRequired     bool                    `json:"cas_required" doc:"Whether every write must carry options.cas."`
	DeleteAfter     wire.Duration           `json:"delete_version_after" doc:"How long after it is written a version answers as deleted."`
	Custom          wire.Object             `json:"custom_metadata" doc:"Names and values of the user's own, null when there are none."`
	Labels          map[string]uint64       `json:"labels" doc:"The version that each label points at."`
	DestroyAfter    wire.Duration           `json:"destroy_deleted_after" doc:"How long after its deletion a version's data is destroyed."`
	Owner           string                  `json:"owner" doc:"Who answers for the secret."`
	Description     string                  `json:"description" doc:"What it is for."`
	Kind            string                  `json:"kind" doc:"What it is."`
	Tags            wire.StringMap          `json:"tags" doc:"Names and values by which it is found."`
	Expires         wire.Time               `json:"expires_at" doc:"When it stops being good; empty for never."`
	Expiry          string                  `json:"expiry" doc:"warn or enforce."`
	Validators      *Validators             `json:"validators,omitempty" doc:"Rules that data must keep."`
	CreatedBy       string                  `json:"created_by" doc:"Who first wrote it."`
	UpdatedBy       string                  `json:"updated_by" doc:"Who last changed it."`
	LastRead        wire.Time               `json:"last_read_time" doc:"When its data was last read; empty for never."`
	LastReadBy      string                  `json:"last_read_by" doc:"Who read it then."`
	DeprecatedReads uint64                  `json:"deprecated_reads" doc:"How often deprecated versions were read."`
}

// ReadMetadata answers what is known of a secret.
func (s *Store) ReadMetadata(ctx context.Context, _ route.Caller, in PathRequest) (MetadataResponse, error) {
	var out MetadataResponse
	if err := engine.CheckPath(in.Path); err != nil {
		return out, err
	}
	err := s.engine.View(ctx, func(r storage.Reader) error {
		m, err := loadMeta(r, in.Path)
		if err != nil {
			return err
		}
		if m == nil {
			return route.Missing()
		}
		a, err := m.describe()
		if err != nil {
			return err
		}
		read, err := loadSeen(r, m.id)
		if err != nil {
			return err
		}
		out = m.answer(a, s.reads.newest(m.id, read))
		out.Subject = route.Subject{Path: in.Path}
		return nil
	})
	return out, err
}

func (m *meta) answer(a about, read seen) MetadataResponse {
	out := MetadataResponse{
		Versions: make(map[string]VersionFacts, len(m.versions)),
		Current:  m.current, Newest: m.newest, Oldest: m.oldest,
		Created: wire.Time{Time: m.created}, Updated: wire.Time{Time: m.updated},
		MaxVersions: a.MaxVersions, CASRequired: a.CASRequired, DeleteAfter: wire.Duration(a.DeleteAfter),
		Custom: m.custom, Labels: m.labelMap(), DestroyAfter: wire.Duration(a.DestroyAfter),
		Owner: a.Owner, Description: a.Description, Kind: a.Kind, Tags: a.Tags,
		Expires: wire.Time{Time: m.expires}, Expiry: expiryWarn, Validators: a.Validators,
		CreatedBy: a.CreatedBy, UpdatedBy: a.UpdatedBy,
		LastRead: wire.Time{Time: read.at}, LastReadBy: read.by, DeprecatedReads: read.deprecated,
	}
	if m.enforce {
		out.Expiry = expiryEnforce
	}
	for i := range m.versions {
		v := &m.versions[i]
		out.Versions[strconv.FormatUint(v.number, 10)] = VersionFacts{
			Created: wire.Time{Time: v.created}, Deletion: wire.Time{Time: v.deletion},
			Gone: v.destroyed, Deprecated: v.deprecated,
		}
	}
	return out
}

// MetadataExists reports whether there is a secret at the path.
func (s *Store) MetadataExists(ctx context.Context, in MetadataRequest) (bool, error) {
	return s.exists(ctx, in.Path)
}

// WriteMetadata sets what is kept about a secret, and makes an empty secret
// where there is none.
func (s *Store) WriteMetadata(ctx context.Context, by route.Caller, in MetadataRequest) (route.Empty, error) {
	if in.Settings == (Settings{Path: in.Path}) && in.Custom == nil && in.Tags == nil && in.Validators == nil {
		return route.Empty{}, engine.CheckPath(in.Path) // nothing is asked for, so nothing is made
	}
	if err := s.rules.check(in.Validators); err != nil {
		return route.Empty{}, err
	}
	return s.describe(ctx, by, &in.Settings, true, func(m *meta, a *about) (err error) {
		if in.Custom != nil {
			if m.custom, err = customMetadata(nil, *in.Custom); err != nil {
				return err
			}
		}
		if in.Tags != nil {
			if a.Tags, err = in.Tags.over(nil); err != nil {
				return err
			}
		}
		if in.Validators != nil {
			a.Validators = in.Validators
		}
		return nil
	})
}

// PatchMetadata changes what is kept about a secret.
func (s *Store) PatchMetadata(ctx context.Context, by route.Caller, in MetadataPatchRequest) (route.Empty, error) {
	return s.describe(ctx, by, &in.Settings, false, func(m *meta, a *about) (err error) {
		if in.Custom != nil {
			if m.custom, err = customMetadata(m.custom, *in.Custom); err != nil {
				return err
			}
		}
		if in.Tags != nil {
			if a.Tags, err = in.Tags.over(a.Tags); err != nil {
				return err
			}
		}
		if in.Validators != nil {
			if a.Validators, err = a.Validators.merge(in.Validators); err != nil {
				return err
			}
		}
		return s.rules.check(a.Validators)
	})
}

// describe changes a secret's metadata in one transaction.
func (s *Store) describe(ctx context.Context, by route.Caller, in *Settings, create bool, fn func(*meta, *about) error) (route.Empty, error) {
	var out route.Empty
	if err := engine.CheckPath(in.Path); err != nil {
		return out, err
	}
	if err := in.check(); err != nil {
		return out, err
	}
	err := s.update(ctx, func(t storage.Txn) error {
		out = route.Empty{Notes: route.Notes{Subject: route.Subject{Path: in.Path}}}
		settings, err := loadConfig(t)
		if err != nil {
			return err
		}
		m, err := loadMeta(t, in.Path)
		if err != nil {
			return err
		}
		a := about{CreatedBy: by.DisplayName}
		switch {
		case m == nil && !create:
			return route.Missing()
		case m == nil:
			m = newMeta(now())
		default:
			if a, err = m.describe(); err != nil {
				return err
			}
		}
		if settings.CASRequired && in.CASRequired != nil && !bool(*in.CASRequired) {
			out.Warn(`"cas_required" set to false, but is mandated by backend config. This value will be ignored.`)
		}
		in.apply(m, &a)
		if err := fn(m, &a); err != nil {
			return err
		}
		m.updated, a.UpdatedBy = now(), by.DisplayName
		if err := m.setAbout(a); err != nil {
			return err
		}
		if in.DestroyAfter != nil {
			if err := reschedule(t, in.Path, m, settings.destroyAfter(a)); err != nil {
				return err
			}
		}
		return m.save(t, in.Path)
	})
	return out, err
}

// reschedule puts the versions that are deleted already into the index.
func reschedule(t storage.Txn, path string, m *meta, after time.Duration) error {
	const most = storage.MaxUpdateKeys - 20
	done := 0
	for i := range m.versions {
		v := &m.versions[i]
		if v.deletion.IsZero() || v.destroyed {
			continue
		}
		if done++; done > most {
			return fault.New(fault.Invalid, "destroy_deleted_after: the secret has more than %d deleted versions; destroy some first", most)
		}
		if err := schedule(t, path, m.id, v, after); err != nil {
			return err
		}
	}
	return nil
}

const (
	expiryWarn    = "warn"
	expiryEnforce = "enforce"
)

// Longest texts of the inventory, in bytes.
const (
	maxOwner       = 256
	maxDescription = 4096
	maxKind        = 64
)

func (in *Settings) check() error {
	if err := checkVersions(in.MaxVersions); err != nil {
		return err
	}
	if in.DeleteAfter != nil && *in.DeleteAfter < 0 {
		return errNegative("delete_version_after")
	}
	if in.DestroyAfter != nil && *in.DestroyAfter < 0 {
		return errNegative("destroy_deleted_after")
	}
	if in.Expiry != nil && *in.Expiry != "" && *in.Expiry != expiryWarn && *in.Expiry != expiryEnforce {
		return fault.New(fault.Invalid, "expiry: it must be warn or enforce")
	}
	for _, f := range []struct {
		name string
		text *string
		most int
	}{{"owner", in.Owner, maxOwner}, {"description", in.Description, maxDescription}, {"kind", in.Kind, maxKind}} {
		if f.text != nil && len(*f.text) > f.most {
			return fault.New(fault.Invalid, "%s: it has %d bytes and may have %d", f.name, len(*f.text), f.most)
		}
	}
	return nil
}

func (in *Settings) apply(m *meta, a *about) {
	if in.MaxVersions != nil {
		a.MaxVersions = int(*in.MaxVersions)
	}
	if in.CASRequired != nil {
		a.CASRequired = bool(*in.CASRequired)
	}
	if in.DeleteAfter != nil {
		a.DeleteAfter = in.DeleteAfter.Duration()
	}
	if in.DestroyAfter != nil {
		a.DestroyAfter = in.DestroyAfter.Duration()
	}
	if in.Owner != nil {
		a.Owner = *in.Owner
	}
	if in.Description != nil {
		a.Description = *in.Description
	}
	if in.Kind != nil {
		a.Kind = *in.Kind
	}
	if in.Expires != nil {
		m.expires = in.Expires.Time
	}
	if in.Expiry != nil {
		m.enforce = *in.Expiry == expiryEnforce
	}
}

// DeleteMetadata removes a secret with all its versions. It cannot be read from
// then on; data that does not fit in one transaction is cleared away by Run.
func (s *Store) DeleteMetadata(ctx context.Context, _ route.Caller, in PathRequest) (route.Empty, error) {
	var untidy bool
	out := route.Empty{Notes: route.Notes{Subject: route.Subject{Path: in.Path}}}
	if err := engine.CheckPath(in.Path); err != nil {
		return out, err
	}
	err := s.update(ctx, func(t storage.Txn) error {
		m, err := loadMeta(t, in.Path)
		if err != nil || m == nil {
			return err
		}
		var numbers []uint64
		for i := range m.versions {
			if !m.versions[i].destroyed {
				numbers = append(numbers, m.versions[i].number)
			}
		}
		if untidy, err = s.discard(t, m.id, numbers); err != nil {
			return err
		}
		if err := t.Delete(seenPrefix + m.id); err != nil {
			return err
		}
		return t.Delete(metaKey(in.Path))
	})
	if untidy {
		s.tidySoon()
	}
	return out, err
}

// ListRequest names a folder and a page of it.
type ListRequest struct {
	Path string `path:"path" doc:"Path of the folder; nothing is the root."`
	route.Page
}

// List answers the names in a folder.
func (s *Store) List(ctx context.Context, _ route.Caller, in ListRequest) (route.Keys, error) {
	path, err := engine.Folder(in.Path)
	if err != nil {
		return route.Keys{}, err
	}
	prefix := metaPrefix
	if path != "" {
		prefix = metaKey(path) + "/"
	}
	out, err := engine.Names(ctx, s.engine, prefix, in.Page)
	out.Subject.Path = path
	return out, err
}
