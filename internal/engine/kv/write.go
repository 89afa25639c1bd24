package kv

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json/jsontext"
)

// WriteOptions go with a write or patch.
type WriteOptions struct {
	CAS   *wire.Int `json:"cas" doc:"The write is refused unless this is the secret's version; 0 means that there is none yet."`
	Stage string    `json:"stage" doc:"Add the version under this label, pending or one of the user's own, without making it active."`
}

// WriteRequest is a new version of a secret.
type WriteRequest struct {
	Path    string       `path:"path" doc:"Path of the secret."`
	Data    wire.Object  `json:"data" doc:"The secret: any JSON object."`
	Options WriteOptions `json:"options" doc:"cas and stage."`
}

// WriteResponse is what is known of the version that was added.
type WriteResponse struct {
	route.Notes
	Facts
}

// Exists reports whether there is a secret at the path.
func (s *Store) Exists(ctx context.Context, in WriteRequest) (bool, error) {
	return s.exists(ctx, in.Path)
}

func (s *Store) exists(ctx context.Context, path string) (found bool, err error) {
	if engine.CheckPath(path) != nil {
		return false, nil
	}
	err = s.engine.View(ctx, func(r storage.Reader) error {
		m, err := loadMeta(r, path)
		found = m != nil
		return err
	})
	return found, err
}

// Write adds a version.
func (s *Store) Write(ctx context.Context, by route.Caller, in WriteRequest) (WriteResponse, error) {
	if err := engine.CheckPath(in.Path); err != nil {
		return WriteResponse{}, err
	}
	data, err := s.accept(in.Data)
	if err != nil {
		return WriteResponse{}, err
	}
	c, err := s.change(by, in.Path, in.Options, data)
	if err != nil {
		return WriteResponse{}, err
	}
	return c.run(ctx)
}

// accept takes a payload: an object without white space around its parts.
func (s *Store) accept(data wire.Object) ([]byte, error) {
	if data == nil {
		return nil, fault.New(fault.Invalid, "no data provided")
	}
	text := jsontext.Value(data)
	if err := text.Compact(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "data: it must be a JSON object")
	}
	return text, s.checkSize(text)
}

// change adds one version to a secret in one transaction. What costs time, the
// fingerprint, the row and the validators, is done outside the transaction,
// because every other write waits while one runs.
type change struct {
	store   *Store
	path    string
	by      string
	options WriteOptions
	value   value
	row     []byte
	basis   basis
	verdict verdict
}

// basis is the version that a patch was made from; the zero value is none.
type basis struct {
	id     string
	number uint64
}

// errMoved says that a patch has to be made again from another version.
var errMoved = errors.New("kv: the active version changed")

func (s *Store) change(by route.Caller, path string, options WriteOptions, data []byte) (*change, error) {
	if options.Stage == Active {
		options.Stage = ""
	}
	if options.Stage != "" {
		if err := checkStage(options.Stage); err != nil {
			return nil, err
		}
	}
	c := &change{store: s, path: path, by: by.DisplayName, options: options}
	c.value = value{fingerprint: s.print(data), by: c.by, data: data}
	c.row = c.value.row()
	return c, nil
}

// run adds the version.
func (c *change) run(ctx context.Context) (out WriteResponse, err error) {
	var untidy bool
	err = c.verdict.decided(c.store, func() error {
		return c.store.update(ctx, func(t storage.Txn) (err error) {
			out, untidy, err = c.apply(t)
			return err
		})
	})
	if err != nil {
		return WriteResponse{}, err
	}
	if untidy {
		c.store.tidySoon()
	}
	return out, nil
}

func (c *change) apply(t storage.Txn) (out WriteResponse, untidy bool, err error) {
	settings, m, a, err := c.load(t)
	if err != nil {
		return out, false, err
	}
	if err := c.compare(m, settings.CASRequired || a.CASRequired); err != nil {
		return out, false, err
	}
	if c.basis.number != 0 && (m.id != c.basis.id || m.label(Active) != c.basis.number) {
		return out, false, errMoved
	}
	if err := c.verdict.ask(settings.validators(a), c.basis, c.value.data); err != nil {
		return out, false, err
	}
	at := now()
	m.newest++
	m.updated = at
	m.versions = append(m.versions, version{number: m.newest, created: at, deletion: settings.deletion(a, at)})
	if c.options.Stage == "" {
		m.activate(m.newest)
	} else if err := m.stage(c.options.Stage); err != nil {
		return out, false, err
	}
	untidy, err = c.store.discard(t, m.id, m.prune(settings.keep(a)))
	if err != nil {
		return out, false, err
	}
	added := m.version(m.newest)
	if err := schedule(t, c.path, m.id, added, settings.destroyAfter(a)); err != nil {
		return out, false, err
	}
	if err := t.Put(dataKey(m.id, m.newest), c.row); err != nil {
		return out, false, err
	}
	out.Facts = m.facts(added)
	out.Subject = route.Subject{Path: c.path, Version: int(m.newest), Label: c.options.Stage, Fingerprint: c.value.fingerprint}
	if out.Subject.Label == "" {
		out.Subject.Label = Active
	}
	return out, untidy, m.save(t, c.path)
}

// load reads what the change is made to, a new secret where there is none, and
// notes who changes it.
func (c *change) load(t storage.Txn) (settings config, m *meta, a about, err error) {
	if settings, err = loadConfig(t); err != nil {
		return settings, nil, a, err
	}
	if m, err = loadMeta(t, c.path); err != nil {
		return settings, nil, a, err
	}
	if m == nil {
		m = newMeta(now())
		a.CreatedBy = c.by
	} else if a, err = m.describe(); err != nil {
		return settings, nil, a, err
	}
	if a.UpdatedBy == c.by {
		return settings, m, a, nil
	}
	a.UpdatedBy = c.by
	return settings, m, a, m.setAbout(a)
}

// compare checks the check-and-set number; see the package comment.
func (c *change) compare(m *meta, required bool) error {
	if c.options.CAS == nil {
		if required {
			return fault.New(fault.Invalid, "check-and-set parameter required for this call")
		}
		return nil
	}
	cas := *c.options.CAS
	active := m.label(Active)
	if cas < 0 || uint64(cas) != m.newest && (cas == 0 || c.options.Stage != "" || uint64(cas) != active) {
		return fault.New(fault.Conflict, "check-and-set parameter did not match the current version")
	}
	return nil
}

// stage puts the newest version under a label other than active.
func (m *meta) stage(name string) error {
	if m.label(name) == 0 {
		if err := m.room(name); err != nil {
			return err
		}
	}
	m.point(name, m.newest)
	return nil
}

// discard removes the data of versions, and leaves what does not fit in one
// transaction to Run; untidy says that something was left.
func (s *Store) discard(t storage.Txn, id string, numbers []uint64) (untidy bool, err error) {
	slices.Sort(numbers)
	gone, later := chunk(numbers)
	for _, n := range gone {
		if err := t.Delete(dataKey(id, n)); err != nil {
			return false, err
		}
	}
	if len(later) == 0 {
		return false, nil
	}
	return true, t.Put(trashKey(id, later[0]), trashRow(later))
}

// schedule puts a version in the index of those to destroy when their time has
// come. An entry that no longer holds is dropped when it is due.
func schedule(t storage.Txn, path, id string, v *version, after time.Duration) error {
	if after <= 0 || v.deletion.IsZero() || v.destroyed {
		return nil
	}
	return t.Put(dueKey(v.deletion.Add(after), id, v.number), []byte(path))
}
