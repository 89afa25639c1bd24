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

// PatchRequest changes parts of the active version into a new one.
type PatchRequest struct {
	Path    string       `path:"path" doc:"Path of the secret."`
	Data    wire.Object  `json:"data" doc:"JSON merge patch (RFC 7396) of the secret: null removes a member."`
	Options WriteOptions `json:"options" doc:"cas and stage."`
}

// maxTries is how often a patch is made again because another write came first.
const maxTries = 100

// Patch adds a version that is the active one with a merge patch applied.
func (s *Store) Patch(ctx context.Context, by route.Caller, in PatchRequest) (WriteResponse, error) {
	if err := engine.CheckPath(in.Path); err != nil {
		return WriteResponse{}, err
	}
	if in.Data == nil {
		return WriteResponse{}, fault.New(fault.Invalid, "no data provided")
	}
	if err := s.checkSize(in.Data); err != nil {
		return WriteResponse{}, err
	}
	for range maxTries {
		out, err := s.patch(ctx, by, in)
		if !errors.Is(err, errMoved) {
			return out, err
		}
	}
	return WriteResponse{}, &fault.Error{
		Kind: fault.Unavailable, RetryAfter: time.Second,
		Message: "the secret is being written too often to be patched; try again",
	}
}

// patch makes the patched data from the active version and adds it, if that
// version is still the active one then.
func (s *Store) patch(ctx context.Context, by route.Caller, in PatchRequest) (WriteResponse, error) {
	var from basis
	var old value
	var gone WriteResponse
	err := s.engine.View(ctx, func(r storage.Reader) error {
		m, err := loadMeta(r, in.Path)
		if err != nil {
			return err
		}
		if m == nil {
			return route.Missing()
		}
		v, err := m.choose(0, "")
		if err != nil {
			return err
		}
		if v.state(now()) != "" {
			gone = WriteResponse{Notes: route.Notes{Status: fault.NotFound.Status()}, Facts: m.facts(v)}
			return nil
		}
		from = basis{m.id, v.number}
		old, err = loadValue(r, m.id, v.number)
		return missingData(err, in.Path, v.number)
	})
	if err != nil || gone.Status != 0 {
		return gone, err
	}
	text, err := mergeText(old.data, in.Data)
	if err != nil {
		return WriteResponse{}, err
	}
	data, err := s.accept(text)
	if err != nil {
		return WriteResponse{}, err
	}
	c, err := s.change(by, in.Path, in.Options, data)
	if err != nil {
		return WriteResponse{}, err
	}
	c.basis = from
	return c.run(ctx)
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
	f, err := s.fetch(ctx, by, in.Path, in.Version, "")
	if err != nil {
		return SubkeysResponse{}, err
	}
	out := SubkeysResponse{Notes: f.notes, Metadata: f.facts}
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
