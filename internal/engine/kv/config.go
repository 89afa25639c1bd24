package kv

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// How many versions a secret keeps unless configured, as in Vault, and at most.
const (
	DefaultVersions = 10
	MaxVersions     = 1000
)

// config is the stored settings of a mount.
type config struct {
	MaxVersions  int           `json:"max_versions,omitempty"`
	CASRequired  bool          `json:"cas_required,omitempty"`
	DeleteAfter  time.Duration `json:"delete_version_after,omitempty"` // negative: off for every secret
	DestroyAfter time.Duration `json:"destroy_deleted_after,omitempty"`
	Validators   *Validators   `json:"validators,omitempty"`
}

func loadConfig(r storage.Reader) (config, error) {
	var c config
	row, err := r.Get(configKey)
	if errors.Is(err, storage.ErrNotFound) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(row, &c)
	}
	return c, err
}

// keep is how many versions a secret keeps.
func (c config) keep(a about) uint64 {
	if n := max(c.MaxVersions, a.MaxVersions); n > 0 {
		return uint64(n)
	}
	return DefaultVersions
}

// deletion is when a version written at now will answer as deleted: after the
// shorter of the mount's and the secret's time, zero for never.
func (c config) deletion(a about, now time.Time) time.Time {
	after := a.DeleteAfter
	if c.DeleteAfter > 0 && (after == 0 || c.DeleteAfter < after) {
		after = c.DeleteAfter
	}
	if after <= 0 || c.DeleteAfter < 0 {
		return time.Time{}
	}
	return now.Add(after)
}

// destroyAfter is how long a deleted version keeps its data, 0 for ever.
func (c config) destroyAfter(a about) time.Duration {
	if a.DestroyAfter != 0 {
		return a.DestroyAfter
	}
	return c.DestroyAfter
}

// validators are those of the secret, or else the mount's.
func (c config) validators(a about) *Validators {
	if a.Validators != nil {
		return a.Validators
	}
	return c.Validators
}

// ConfigRequest sets the mount's settings; what is not sent stays.
type ConfigRequest struct {
	MaxVersions  *wire.Int     `json:"max_versions" doc:"How many versions a secret keeps; 0 is 10, at most 1000. The larger of this and a secret's own counts."`
	CASRequired  *wire.Bool    `json:"cas_required" doc:"Whether every write must carry options.cas."`
	DeleteAfter  *wire.Seconds `json:"delete_version_after" doc:"How long after it is written a version answers as deleted; 0 is never, negative turns it off for every secret."`
	DestroyAfter *wire.Seconds `json:"destroy_deleted_after" doc:"How long after its deletion a version's data is destroyed for good; 0 is never. It holds for versions deleted from now on."`
	Validators   *Validators   `json:"validators" doc:"Rules for the data of secrets that have none of their own."`
}

// ConfigResponse is the mount's settings.
type ConfigResponse struct {
	route.Notes
	MaxVersions  int           `json:"max_versions" doc:"How many versions a secret keeps; 0 is 10."`
	CASRequired  bool          `json:"cas_required" doc:"Whether every write must carry options.cas."`
	DeleteAfter  wire.Duration `json:"delete_version_after" doc:"How long after it is written a version answers as deleted."`
	DestroyAfter wire.Duration `json:"destroy_deleted_after" doc:"How long after its deletion a version's data is destroyed."`
	Validators   *Validators   `json:"validators,omitempty" doc:"Rules for the data of secrets that have none of their own."`
}

// ReadConfig answers the mount's settings.
func (s *Store) ReadConfig(ctx context.Context, _ route.Caller, _ route.Nothing) (ConfigResponse, error) {
	var c config
	err := s.engine.View(ctx, func(r storage.Reader) (err error) {
		c, err = loadConfig(r)
		return err
	})
	return ConfigResponse{
		MaxVersions: c.MaxVersions, CASRequired: c.CASRequired, DeleteAfter: wire.Duration(c.DeleteAfter),
		DestroyAfter: wire.Duration(c.DestroyAfter), Validators: c.Validators,
	}, err
}

// WriteConfig changes the mount's settings.
func (s *Store) WriteConfig(ctx context.Context, _ route.Caller, in ConfigRequest) (route.Empty, error) {
	if err := checkVersions(in.MaxVersions); err != nil {
		return route.Empty{}, err
	}
	if in.DestroyAfter != nil && *in.DestroyAfter < 0 {
		return route.Empty{}, errNegative("destroy_deleted_after")
	}
	if err := s.rules.check(in.Validators); err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, s.update(ctx, func(t storage.Txn) error {
		c, err := loadConfig(t)
		if err != nil {
			return err
		}
		if in.MaxVersions != nil {
			c.MaxVersions = int(*in.MaxVersions)
		}
		if in.CASRequired != nil {
			c.CASRequired = bool(*in.CASRequired)
		}
		if in.DeleteAfter != nil {
			// Vault answers every negative time as -1s.
			c.DeleteAfter = max(in.DeleteAfter.Duration(), -time.Second)
		}
		if in.DestroyAfter != nil {
			c.DestroyAfter = in.DestroyAfter.Duration()
		}
		if in.Validators != nil {
			c.Validators = in.Validators.orNone()
		}
		row, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return t.Put(configKey, row)
	})
}

func checkVersions(n *wire.Int) error {
	if n != nil && (*n < 0 || *n > MaxVersions) {
		return fault.New(fault.Invalid, "max_versions: it must be from 0 to %d", MaxVersions)
	}
	return nil
}

func errNegative(name string) error {
	return fault.New(fault.Invalid, "%s: it must not be negative", name)
}
