package mount

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/storage"
)

// Request asks for a mount.
type Request struct {
	Path        string
	Type        string
	Class       engine.Class
	Description string
	Options     map[string]string
	Config      Config
	Local       bool
	SealWrap    bool
}

// Enable mounts an engine. The mount answers when Enable has returned.
func (t *Table) Enable(ctx context.Context, r Request) (*Entry, error) {
	path, err := CleanPath(r.Path)
	if err != nil {
		return nil, err
	}
	options := maps.Clone(r.Options)
	if name, version, ok := strings.Cut(r.Type, "-v"); ok && t.Kinds(r.Type, "") == nil && t.Kinds(name, version) != nil {
		r.Type = name // "kv-v2" is Vault's other spelling of kv with version=2
		if options == nil {
			options = map[string]string{}
		}
		options["version"] = version
	}
	spec := t.Kinds(r.Type, options["version"])
	if spec == nil || spec.Class != r.Class {
		return nil, fault.New(fault.Invalid, "plugin not found in the catalog: %s; `coffer read sys/plugins/catalog` lists what there is", r.Type)
	}
	if spec.Version != "" && options["version"] == "" {
		if options == nil {
			options = map[string]string{}
		}
		options["version"] = spec.Version
	}
	if err := checkConfig(r.Config); err != nil {
		return nil, err
	}
	e := newEntry(path, r.Type, r.Class)
	e.Description, e.Options, e.Config, e.Local, e.SealWrap = r.Description, options, r.Config, r.Local, r.SealWrap
	if err := t.opens(ctx, spec, e); err != nil {
		return nil, err
	}
	return e, t.change(ctx, func(tx storage.Txn, entries []*Entry) error {
		if len(entries) >= MaxMounts {
			return fault.New(fault.Limited, "there are %d mounts, which is the limit", MaxMounts)
		}
		if r.Class == engine.System {
			if _, err := find(entries, path); err == nil {
				return nil // another node was faster
			}
		} else if err := t.checkPlace(tx, path, r.Class, entries); err != nil {
			return err
		}
		if err := t.Barrier.CreateKeys(tx, t.scope(e)); err != nil {
			return err
		}
		return t.put(tx, e)
	})
}

// checkPlace refuses a path that other mounts, or namespaces, are in the way of.
func (t *Table) checkPlace(r storage.Reader, path string, class engine.Class, others []*Entry) error {
	if err := checkPlace(path, class, others); err != nil || t.Taken == nil {
		return err
	}
	return t.Taken(r, path)
}

// Ensure enables a system mount where it is not there yet.
func (t *Table) Ensure(ctx context.Context, r Request) error {
	if t.At(r.Path) != nil {
		return nil
	}
	_, err := t.Enable(ctx, r)
	return err
}

// Disable unmounts path, after what it lent was taken back: it is refused while
// that cannot be. Nothing of the mount can be read once Disable has returned; its
// rows are erased in the background.
func (t *Table) Disable(ctx context.Context, path string) error {
	for tries := 0; ; tries++ {
		if err := t.takeBack(ctx, path); err != nil {
			return err
		}
		// Something may have been lent meanwhile.
		if err := t.disable(ctx, path); !errors.Is(err, lease.ErrLends) || tries == lendTries {
			return err
		}
	}
}

// lendTries is how often Disable starts anew because something was lent meanwhile.
const lendTries = 5

func (t *Table) takeBack(ctx context.Context, path string) error {
	m := t.At(path)
	if m == nil || t.Leases == nil || m.Entry.Class == engine.System {
		return nil
	}
	return t.Leases.EndMount(ctx, m.Entry.UUID, m.Entry.Path)
}

func (t *Table) disable(ctx context.Context, path string) error {
	return t.edit(ctx, path, func(tx storage.Txn, e *Entry, _ []*Entry) error {
		if e.Class == engine.System {
			return fault.New(fault.Invalid, "cannot unmount %q", e.Path)
		}
		if err := lease.CheckNone(tx, e.UUID); err != nil {
			return fault.Wrap(fault.Conflict, err, "%s lends faster than it is taken back; forbid it by a policy and try again", e.Path)
		}
		e.Ending = true
		return t.Barrier.DestroyKeys(tx, t.scope(e))
	})
}

// Tune changes a mount's configuration through fn.
func (t *Table) Tune(ctx context.Context, path string, fn func(e *Entry) error) error {
	return t.edit(ctx, path, func(_ storage.Txn, e *Entry, _ []*Entry) error {
		before := t.Kinds(e.Type, e.Options["version"])
		if err := fn(e); err != nil {
			return err
		}
		after := t.Kinds(e.Type, e.Options["version"])
		if after == nil || after != before && !slices.Contains(after.Upgradable, before.Version) {
			return fault.New(fault.Invalid, "mount %s cannot be changed from version %s to %q", e.Path, before.Version, e.Options["version"])
		}
		if err := checkConfig(e.Config); err != nil {
			return err
		}
		return t.opens(ctx, after, e)
	})
}

// opens reports why an engine would not open with the entry's options, before
// they are kept: a mount that does not open could not be changed any more.
func (t *Table) opens(ctx context.Context, spec *engine.Spec, e *Entry) error {
	_, err := spec.Open(ctx, t.env(e))
	return err
}

// Move gives a mount another path. Its content, keys and accessor stay.
func (t *Table) Move(ctx context.Context, from, to string) error {
	path, err := CleanPath(to)
	if err != nil {
		return err
	}
	return t.edit(ctx, from, func(tx storage.Txn, e *Entry, entries []*Entry) error {
		if e.Class == engine.System {
			return fault.New(fault.Invalid, "cannot remount %q", e.Path)
		}
		others := make([]*Entry, 0, len(entries))
		for _, o := range entries {
			if o.UUID != e.UUID {
				others = append(others, o)
			}
		}
		if err := t.checkPlace(tx, path, e.Class, others); err != nil {
			return err
		}
		e.Path = path
		return nil
	})
}

// edit changes the entry at path in one transaction.
func (t *Table) edit(ctx context.Context, path string, fn func(storage.Txn, *Entry, []*Entry) error) error {
	clean, err := CleanPath(path)
	if err != nil {
		return err
	}
	return t.change(ctx, func(tx storage.Txn, entries []*Entry) error {
		e, err := find(entries, clean)
		if err != nil {
			return err
		}
		if err := fn(tx, e, entries); err != nil {
			return err
		}
		return t.put(tx, e)
	})
}

// change runs fn on the table's rows and loads the table anew, so that the
// change is seen by whoever asks next on this node.
func (t *Table) change(ctx context.Context, fn func(storage.Txn, []*Entry) error) error {
	if _, err := t.Barrier.Update(ctx, func(tx storage.Txn) error {
		entries, err := read(tx, t.Prefix)
		if err != nil {
			return err
		}
		return fn(tx, entries)
	}); err != nil {
		return err
	}
	return t.load(ctx)
}

func checkConfig(c Config) error {
	def, max := c.DefaultTTL.Duration(), c.MaxTTL.Duration()
	switch {
	case def < 0 || max < 0:
		return fault.New(fault.Invalid, "a lease TTL cannot be negative")
	case max != 0 && def > max:
		return fault.New(fault.Invalid, "default_lease_ttl %v is longer than max_lease_ttl %v", def, max)
	}
	switch c.ListingVisibility {
	case "", "hidden", "unauth":
	default:
		return fault.New(fault.Invalid, "listing_visibility must be hidden or unauth")
	}
	switch c.TokenType {
	case "", "default-service", "default-batch", "service", "batch":
		return nil
	}
	return fault.New(fault.Invalid, "token_type must be default-service, default-batch, service or batch")
}
