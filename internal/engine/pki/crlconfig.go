package pki

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var crlConfigRoutes = []route.Route[*Engine]{
	route.New("GET", "config/crl", "Read how lists of revoked certificates are made.", (*Engine).readCRLConfig,
		route.Shows("config/crl", "", "")),
	route.New("POST", "config/crl", "Set how lists of revoked certificates are made.", (*Engine).writeCRLConfig,
		route.Shows("config/crl", `{"expiry":"72h","auto_rebuild":true,"enable_delta":true}`, "")),
}

const crlConfigRow = "config/crl"

// crlConfig is how lists are made. Times are kept as they were written, since that is
// how those who set them compare them.
type crlConfig struct {
	Expiry        string `json:"expiry"`
	Disable       bool   `json:"disable"`
	OCSPDisable   bool   `json:"ocsp_disable"`
	OCSPExpiry    string `json:"ocsp_expiry"`
	AutoRebuild   bool   `json:"auto_rebuild"`
	Grace         string `json:"auto_rebuild_grace_period"`
	Delta         bool   `json:"enable_delta"`
	DeltaInterval string `json:"delta_rebuild_interval"`
	Expired       bool   `json:"allow_expired_cert_revocation"`
}

func standardCRLConfig() crlConfig {
	return crlConfig{Expiry: "72h", OCSPExpiry: "12h", Grace: "12h", DeltaInterval: "15m"}
}

// WriteCRLConfig sets how lists are made.
type WriteCRLConfig struct {
	Expiry        *string    `json:"expiry" doc:"How long a list is good, 72h unless given."`
	Disable       *wire.Bool `json:"disable" doc:"Have lists be empty."`
	OCSPDisable   *wire.Bool `json:"ocsp_disable" doc:"Have the OCSP responder refuse."`
	OCSPExpiry    *string    `json:"ocsp_expiry" doc:"How long an OCSP answer is good, 12h unless given; 0 says nothing of it."`
	AutoRebuild   *wire.Bool `json:"auto_rebuild" doc:"Make lists by the clock only, and not with every certificate that is revoked."`
	Grace         *string    `json:"auto_rebuild_grace_period" doc:"How long before a list ends the next is made, 12h unless given."`
	Delta         *wire.Bool `json:"enable_delta" doc:"Make lists of what is revoked since the last whole one; with auto_rebuild."`
	DeltaInterval *string    `json:"delta_rebuild_interval" doc:"How often these are made, 15m unless given."`
	Expired       *wire.Bool `json:"allow_expired_cert_revocation" doc:"Revoke also certificates that expired."`
}

// duration reads a time of the settings, which were checked when they were kept.
func duration(text string) time.Duration {
	d, _ := wire.ParseDuration(text)
	return d
}

func (c *crlConfig) check() error {
	for name, text := range map[string]string{"expiry": c.Expiry, "ocsp_expiry": c.OCSPExpiry, "auto_rebuild_grace_period": c.Grace, "delta_rebuild_interval": c.DeltaInterval} {
		d, err := wire.ParseDuration(text)
		if err != nil {
			return fault.New(fault.Invalid, "%s: %v", name, err)
		}
		if d < 0 || name == "expiry" && d < time.Minute || name == "delta_rebuild_interval" && d < time.Second {
			return fault.New(fault.Invalid, "%s: it is too short", name)
		}
	}
	switch expiry := duration(c.Expiry); {
	case c.AutoRebuild && duration(c.Grace) >= expiry:
		return fault.New(fault.Invalid, "CRL auto-rebuilding grace period (%s) must be strictly shorter than CRL expiry (%s) value when auto-rebuilding of CRLs is enabled", c.Grace, c.Expiry)
	case c.Delta && duration(c.DeltaInterval) >= expiry:
		return fault.New(fault.Invalid, "CRL delta rebuild window (%s) must be strictly shorter than CRL expiry (%s) value when delta CRLs are enabled", c.DeltaInterval, c.Expiry)
	case c.Delta && !c.AutoRebuild:
		return fault.New(fault.Invalid, "Delta CRLs cannot be enabled when auto rebuilding is disabled as the complete CRL is always regenerated!")
	}
	return nil
}

// grace is how long before a list ends the next is made.
func (c *crlConfig) grace() time.Duration {
	expiry := duration(c.Expiry)
	return min(duration(c.Grace), expiry/2)
}

func loadCRLConfig(r storage.Reader) (crlConfig, error) {
	c, err := storage.Load[crlConfig](r, crlConfigRow)
	if err != nil || c == nil {
		return standardCRLConfig(), err
	}
	return *c, nil
}

// crlConfigLately returns the settings as they were at most a second ago.
func (e *Engine) crlConfigLately(ctx context.Context) (crlConfig, error) {
	row, err := e.env.Recent(ctx, crlConfigRow)
	c, err := storage.Decode[crlConfig](crlConfigRow, row, err)
	if err != nil || c == nil {
		return standardCRLConfig(), err
	}
	return *c, nil
}

func (e *Engine) readCRLConfig(ctx context.Context, _ route.Caller, _ route.Nothing) (c crlConfig, err error) {
	err = e.env.Storage.View(ctx, func(r storage.Reader) error {
		c, err = loadCRLConfig(r)
		return err
	})
	return c, err
}

func (e *Engine) writeCRLConfig(ctx context.Context, _ route.Caller, in WriteCRLConfig) (c crlConfig, err error) {
	if _, err := e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		if c, err = loadCRLConfig(t); err != nil {
			return err
		}
		rows.Set(&c.Expiry, in.Expiry)
		rows.Set((*wire.Bool)(&c.Disable), in.Disable)
		rows.Set((*wire.Bool)(&c.OCSPDisable), in.OCSPDisable)
		rows.Set(&c.OCSPExpiry, in.OCSPExpiry)
		rows.Set((*wire.Bool)(&c.AutoRebuild), in.AutoRebuild)
		rows.Set(&c.Grace, in.Grace)
		rows.Set((*wire.Bool)(&c.Delta), in.Delta)
		rows.Set(&c.DeltaInterval, in.DeltaInterval)
		rows.Set((*wire.Bool)(&c.Expired), in.Expired)
		if err := c.check(); err != nil {
			return err
		}
		if err := t.Schedule(listsTask, time.Now().Add(soon)); err != nil {
			return err
		}
		return storage.Save(t, crlConfigRow, c)
	}); err != nil {
		return c, err
	}
	// Lists that were made by other settings are made anew.
	return c, e.buildAll(ctx, true)
}
