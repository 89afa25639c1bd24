package kv

import (
	"context"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// MaxLabels is how many labels of the user's own a secret may have.
const MaxLabels = 32

// checkName refuses what cannot be a label.
func checkName(name string) error {
	ok := name != "" && len(name) <= 63
	for i := 0; i < len(name) && ok; i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && (c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fault.New(fault.Invalid, "label: a name has 1 to 63 of a-z, 0-9, and after the first also . _ -")
	}
	return nil
}

// checkStage refuses labels under which nothing can be staged.
func checkStage(name string) error {
	if name == Previous || name == Deprecated {
		return fault.New(fault.Invalid, "options.stage: %s is reserved; stage under pending or a label of your own", name)
	}
	return checkName(name)
}

// room refuses one label of the user's own too many.
func (m *meta) room(name string) error {
	own := 0
	for _, l := range m.labels {
		if l.name != Active && l.name != Pending && l.name != Previous {
			own++
		}
	}
	if name != Pending && own >= MaxLabels {
		return fault.New(fault.Invalid, "label: a secret has at most %d labels of its own; delete one first", MaxLabels)
	}
	return nil
}

// MoveRequest moves the label active.
type MoveRequest struct {
	Path    string    `path:"path" doc:"Path of the secret."`
	Version wire.Int  `json:"version" doc:"Number of the version to make active; without it, the one that pending (promote) or previous (rollback) points at."`
	Label   string    `json:"label" doc:"Instead of version: the label that points at it."`
	CAS     *wire.Int `json:"cas" doc:"The move is refused unless active points at this version now; 0 means at none."`
}

// LabelsResponse is where the labels of a secret point.
type LabelsResponse struct {
	route.Notes
	Labels     map[string]uint64 `json:"labels" doc:"The version that each label points at."`
	Deprecated []uint64          `json:"deprecated" doc:"The versions that are marked deprecated."`
}

func (m *meta) answerLabels() LabelsResponse {
	out := LabelsResponse{Labels: m.labelMap(), Deprecated: []uint64{}}
	for i := range m.versions {
		if m.versions[i].deprecated {
			out.Deprecated = append(out.Deprecated, m.versions[i].number)
		}
	}
	return out
}

// Promote makes a version active: the pending one unless another is named.
func (s *Store) Promote(ctx context.Context, by route.Caller, in MoveRequest) (LabelsResponse, error) {
	return s.move(ctx, by, in, Pending)
}

// Rollback makes a version active: the previous one unless another is named.
func (s *Store) Rollback(ctx context.Context, by route.Caller, in MoveRequest) (LabelsResponse, error) {
	return s.move(ctx, by, in, Previous)
}

func (s *Store) move(ctx context.Context, by route.Caller, in MoveRequest, usual string) (LabelsResponse, error) {
	switch {
	case in.Version < 0:
		return LabelsResponse{}, errNegative("version")
	case in.Version > 0 && in.Label != "":
		return LabelsResponse{}, fault.New(fault.Invalid, "name a version or a label, not both")
	case in.Label == "":
		in.Label = usual
	}
	var judged verdict
	return s.relabel(ctx, by, in.Path, &judged, func(t storage.Txn, m *meta) (uint64, string, error) {
		if err := comparePointer(m, Active, in.CAS); err != nil {
			return 0, "", err
		}
		number := uint64(in.Version)
		if number == 0 {
			if number = m.label(in.Label); number == 0 {
				return 0, "", fault.New(fault.Invalid, "nothing is labelled %s; name the version to make active", in.Label)
			}
		}
		return number, Active, s.makeActive(t, in.Path, m, number, &judged)
	})
}

// makeActive moves active to a version that may be read and is valid.
func (s *Store) makeActive(t storage.Txn, path string, m *meta, number uint64, judged *verdict) error {
	v, err := m.usable(number)
	if err != nil {
		return err
	}
	if v.deprecated {
		return fault.New(fault.Invalid, "version %d is marked deprecated; remove the mark first, or name another", number)
	}
	settings, err := loadConfig(t)
	if err != nil {
		return err
	}
	a, err := m.describe()
	if err != nil {
		return err
	}
	if rules := settings.validators(a); rules != nil {
		val, err := loadValue(t, m.id, number)
		if err != nil {
			return missingData(err, path, number)
		}
		if err := judged.ask(rules, basis{m.id, number}, val.data); err != nil {
			return err
		}
	}
	m.activate(number)
	return nil
}

// usable returns a version that a label may be moved to.
func (m *meta) usable(number uint64) (*version, error) {
	v := m.version(number)
	if v == nil {
		return nil, fault.New(fault.Invalid, "there is no version %d", number)
	}
	switch v.state(now()) {
	case "destroyed":
		return nil, fault.New(fault.Invalid, "version %d is destroyed; its data is gone", number)
	case "deleted":
		return nil, fault.New(fault.Invalid, "version %d is deleted; undelete it first, or name another", number)
	}
	return v, nil
}

// comparePointer checks a label's check-and-set.
func comparePointer(m *meta, name string, cas *wire.Int) error {
	if cas == nil {
		return nil
	}
	if *cas < 0 || uint64(*cas) != m.label(name) {
		return fault.New(fault.Conflict, "check-and-set parameter did not match the version that %s points at", name)
	}
	return nil
}

// relabel changes labels in one transaction. fn returns the version and label
// it was about.
func (s *Store) relabel(ctx context.Context, by route.Caller, path string, judged *verdict, fn func(storage.Txn, *meta) (uint64, string, error)) (LabelsResponse, error) {
	var out LabelsResponse
	if err := engine.CheckPath(path); err != nil {
		return out, err
	}
	transact := func(t storage.Txn) error {
		m, err := loadMeta(t, path)
		if err != nil {
			return err
		}
		if m == nil {
			return route.Missing()
		}
		number, name, err := fn(t, m)
		if err != nil {
			return err
		}
		if err := m.touch(by.DisplayName); err != nil {
			return err
		}
		out = m.answerLabels()
		out.Subject = route.Subject{Path: path, Version: int(number), Label: name}
		return m.save(t, path)
	}
	if err := judged.decided(s, func() error { return s.update(ctx, transact) }); err != nil {
		return LabelsResponse{}, err
	}
	return out, nil
}

// touch remembers who changed the secret, and when.
func (m *meta) touch(by string) error {
	a, err := m.describe()
	if err != nil {
		return err
	}
	m.updated, a.UpdatedBy = now(), by
	return m.setAbout(a)
}

// ReadLabels answers where the labels of a secret point.
func (s *Store) ReadLabels(ctx context.Context, _ route.Caller, in PathRequest) (LabelsResponse, error) {
	var out LabelsResponse
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
		out = m.answerLabels()
		return nil
	})
	return out, err
}

// LabelRequest moves one label, or marks a version deprecated.
type LabelRequest struct {
	Path    string    `path:"path" doc:"Path of the secret."`
	Label   string    `json:"label" doc:"active, pending, deprecated, or a label of your own; previous moves by itself."`
	Version wire.Int  `json:"version" doc:"Number of the version."`
	CAS     *wire.Int `json:"cas" doc:"The move is refused unless the label points at this version now; 0 means at none."`
}

// MoveLabel points a label at a version.
func (s *Store) MoveLabel(ctx context.Context, by route.Caller, in LabelRequest) (LabelsResponse, error) {
	if err := checkName(in.Label); err != nil {
		return LabelsResponse{}, err
	}
	switch {
	case in.Version <= 0:
		return LabelsResponse{}, fault.New(fault.Invalid, "version: name the version that the label is to point at")
	case in.Label == Previous:
		return LabelsResponse{}, fault.New(fault.Invalid, "label: previous is reserved; it moves when active does")
	case in.Label == Deprecated && in.CAS != nil:
		return LabelsResponse{}, fault.New(fault.Invalid, "cas: deprecated is a mark and points at no version")
	}
	number := uint64(in.Version)
	var judged verdict
	return s.relabel(ctx, by, in.Path, &judged, func(t storage.Txn, m *meta) (uint64, string, error) {
		if err := comparePointer(m, in.Label, in.CAS); err != nil {
			return 0, "", err
		}
		if in.Label == Active {
			return number, in.Label, s.makeActive(t, in.Path, m, number, &judged)
		}
		v, err := m.usable(number)
		switch {
		case err != nil:
			return 0, "", err
		case number == m.label(Active) && (in.Label == Pending || in.Label == Deprecated):
			return 0, "", fault.New(fault.Invalid, "version %d is active and cannot be %s", number, in.Label)
		case in.Label == Deprecated:
			v.deprecated = true
			return number, in.Label, nil
		}
		if m.label(in.Label) == 0 {
			if err := m.room(in.Label); err != nil {
				return 0, "", err
			}
		}
		m.point(in.Label, number)
		return number, in.Label, nil
	})
}

// UnlabelRequest removes a label or a deprecation.
type UnlabelRequest struct {
	Path    string   `path:"path" doc:"Path of the secret."`
	Label   string   `query:"label" doc:"pending, deprecated, or a label of your own."`
	Version wire.Int `query:"version" doc:"With deprecated: number of the version."`
}

// RemoveLabel removes a label; the version it points at stays.
func (s *Store) RemoveLabel(ctx context.Context, by route.Caller, in UnlabelRequest) (LabelsResponse, error) {
	if err := checkName(in.Label); err != nil {
		return LabelsResponse{}, err
	}
	if in.Label == Active || in.Label == Previous {
		return LabelsResponse{}, fault.New(fault.Invalid, "label: %s is reserved and cannot be removed", in.Label)
	}
	return s.relabel(ctx, by, in.Path, &verdict{}, func(_ storage.Txn, m *meta) (uint64, string, error) {
		if in.Label != Deprecated {
			number := m.label(in.Label)
			if number == 0 {
				return 0, "", route.Missing()
			}
			m.point(in.Label, 0)
			return number, in.Label, nil
		}
		v := m.version(uint64(max(in.Version, 0)))
		if v == nil || !v.deprecated {
			return 0, "", route.Missing()
		}
		v.deprecated = false
		return v.number, in.Label, nil
	})
}
