package cert

import (
	"context"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Config are the method's settings.
type Config struct {
	DisableBinding    bool `json:"disable_binding" doc:"Whether a token is renewed by somebody without the certificate of its login."`
	AliasMetadata     bool `json:"enable_identity_alias_metadata" doc:"Whether what the certificate says is kept with the identity."`
	MetadataOnFailure bool `json:"enable_metadata_on_failures" doc:"Whether a refusal names the certificate."`
	OCSPCacheSize     int  `json:"ocsp_cache_size" doc:"How many OCSP answers are kept."`
	RoleCacheSize     int  `json:"role_cache_size" doc:"Of no effect: all roles are kept in memory."`
}

// WriteConfig changes the settings.
type WriteConfig struct {
	DisableBinding    *wire.Bool `json:"disable_binding" doc:"Renew tokens for whoever holds them, without the certificate of their login."`
	AliasMetadata     *wire.Bool `json:"enable_identity_alias_metadata" doc:"Keep what the certificate says with the identity, for templates of policies."`
	MetadataOnFailure *wire.Bool `json:"enable_metadata_on_failures" doc:"Name the certificate in refusals, and so in the audit log."`
	OCSPCacheSize     *wire.Int  `json:"ocsp_cache_size" doc:"How many OCSP answers are kept in memory: 2 to 100000."`
	RoleCacheSize     *wire.Int  `json:"role_cache_size" doc:"Accepted for Vault's sake: all roles are kept in memory."`
}

func standard() Config { return Config{OCSPCacheSize: 100, RoleCacheSize: 200} }

func configOf(r storage.Reader) (Config, error) {
	c, err := storage.Load[Config](r, configKey)
	if err != nil || c == nil {
		return standard(), err
	}
	return *c, nil
}

func (m *Method) config(ctx context.Context) (c Config, err error) {
	err = m.storage.View(ctx, func(r storage.Reader) error {
		c, err = configOf(r)
		return err
	})
	return c, err
}

func (m *Method) readConfig(ctx context.Context, _ route.Caller, _ route.Nothing) (Config, error) {
	return m.config(ctx)
}

func (m *Method) writeConfig(ctx context.Context, _ route.Caller, in WriteConfig) (route.Empty, error) {
	const most = 100_000
	switch {
	case in.OCSPCacheSize != nil && (*in.OCSPCacheSize < 2 || *in.OCSPCacheSize > most):
		return route.Empty{}, fault.New(fault.Invalid, "invalid cache size, must be >= 2 and <= %d", most)
	case in.RoleCacheSize != nil && (*in.RoleCacheSize < -1 || *in.RoleCacheSize > most):
		return route.Empty{}, fault.New(fault.Invalid, "invalid cache size, must be >= -1 and <= %d", most)
	}
	_, err := m.storage.Update(ctx, func(t storage.Txn) error {
		c, err := configOf(t)
		if err != nil {
			return err
		}
		for _, f := range []struct {
			dst *bool
			src *wire.Bool
		}{{&c.DisableBinding, in.DisableBinding}, {&c.AliasMetadata, in.AliasMetadata}, {&c.MetadataOnFailure, in.MetadataOnFailure}} {
			if f.src != nil {
				*f.dst = bool(*f.src)
			}
		}
		if in.OCSPCacheSize != nil {
			c.OCSPCacheSize = int(*in.OCSPCacheSize)
		}
		if in.RoleCacheSize != nil {
			c.RoleCacheSize = int(*in.RoleCacheSize)
		}
		return storage.Save(t, configKey, c)
	})
	return route.Empty{}, err
}
