package kv

import (
	"context"
	"errors"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// PatchRequest changes parts of the active version into a new one.
type PatchRequest struct {
	Path    string       `path:"path" doc:"Path of the secret."`
	Data    wire.Object  `json:"data" doc:"JSON merge patch (RFC 7396) of the secret: null removes a member."`
	Options WriteOptions `json:"options" doc:"cas and stage."`
}

// unreadable carries the answer for a secret whose active version is deleted
// or destroyed out of a transaction.
type unreadable struct{ facts Facts }

func (unreadable) Error() string { return "the active version is deleted or destroyed" }

// Patch adds a version that is the active one with a merge patch applied.
func (s *Store) Patch(ctx context.Context, by route.Caller, in PatchRequest) (WriteResponse, error) {
	if err := checkPath(in.Path); err != nil {
		return WriteResponse{}, err
	}
	if in.Data == nil {
		return WriteResponse{}, fault.New(fault.Invalid, "no data provided")
	}
	if err := s.checkSize(in.Data); err != nil {
		return WriteResponse{}, err
	}
	out, err := s.change(by, in.Path, in.Options).run(ctx, func(r storage.Reader, m *meta) ([]byte, error) {
		if m == nil {
			return nil, route.Missing()
		}
		v, err := m.choose(0, "")
		if err != nil {
			return nil, err
		}
		if v.state(now()) != "" {
			return nil, unreadable{m.facts(v)}
		}
		old, err := loadValue(r, m.id, v.number)
		if err != nil {
			return nil, missingData(err, in.Path, v.number)
		}
		text, err := mergeText(old.data, in.Data)
		if err != nil {
			return nil, err
		}
		return s.accept(text)
	})
	var gone unreadable
	if errors.As(err, &gone) {
		return WriteResponse{Notes: route.Notes{Status: fault.NotFound.Status()}, Facts: gone.facts}, nil
	}
	return out, err
}

// SubkeysRequest asks for the structure of a secret.
type SubkeysRequest struct {
	Path    string   `path:"path" doc:"Path of the secret."`
	Version wire.Int `query:"version" doc:"Number of the version; 0 or nothing reads the active one."`
	Depth   wire.Int `query:"depth" doc:"How many levels are shown; 0 shows all."`
}

// SubkeysResponse is a secret's keys with null for every value.
type SubkeysResponse struct {
	route.Notes
	Subkeys  wire.Object `json:"subkeys" doc:"The secret with null for every value."`
	Metadata Facts       `json:"metadata" doc:"About the version."`
}

// Subkeys answers the keys of a secret without its values.
func (s *Store) Subkeys(ctx context.Context, by route.Caller, in SubkeysRequest) (SubkeysResponse, error) {
	if in.Depth < 0 {
		return SubkeysResponse{}, errNegative("depth")
	}
	var out SubkeysResponse
	f, err := s.fetch(ctx, by, in.Path, in.Version, "", func(m *meta, v *version) { out.Metadata = m.facts(v) })
	if err != nil {
		return SubkeysResponse{}, err
	}
	out.Notes = f.notes
	if f.data == nil {
		return out, nil
	}
	t, err := parseTree(f.data)
	if err != nil {
		return SubkeysResponse{}, err
	}
	t = t.keys(int(in.Depth))
	out.Subkeys = t.append(nil)
	return out, nil
}
