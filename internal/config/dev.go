package config

import (
	"fmt"
	"net/netip"

	"github.com/cofferhq/coffer/internal/wire"
)

// Dev is a development server: unsealed, in memory, plain HTTP on loopback
// unless asked otherwise. The fields are Vault's -dev flags.
type Dev struct {
	RootToken    wire.Secret // -dev-root-token-id; "" has one made
	Address      string      // -dev-listen-address; "" is 127.0.0.1:8200
	TLS          bool        // -dev-tls
	TLSDir       string      // -dev-tls-cert-dir; "" is a directory of its own
	TLSNames     []string    // -dev-tls-san
	NoKV         bool        // -dev-no-kv: secret/ is not mounted
	NoStoreToken bool        // -dev-no-store-token: the root token is not put into ~/.vault-token
}

// develop makes c a development server's configuration.
func (c *Config) develop(dev Dev, getenv func(string) string) []Problem {
	if dev.RootToken == "" {
		_, token := lookup(getenv, "DEV_ROOT_TOKEN_ID")
		dev.RootToken = wire.Secret(token)
	}
	from, given := "-dev-listen-address", dev.Address
	if given == "" {
		from, given = lookup(getenv, "DEV_LISTEN_ADDRESS")
	}
	if given == "" {
		given = DefaultAddress
	}
	parsed, err := parseAddress(given)
	if err != nil {
		return []Problem{{File: from, Message: err.Error()}}
	}
	dev.Address = parsed
	l := defaultListener("tcp")
	l.Address = parsed
	l.TLS.Mode = TLSOff
	if dev.TLS {
		l.TLS.Mode, l.TLS.Dir, l.TLS.Names = TLSPrivate, dev.TLSDir, dev.TLSNames
	} else if at, err := netip.ParseAddrPort(parsed); err != nil || !at.Addr().IsLoopback() {
		c.Notices = append(c.Notices, fmt.Sprintf("%s: plain HTTP beyond this machine shows every secret to the network; add -dev-tls", parsed))
	}
	c.Listeners = append(c.Listeners, l)
	c.Storage = Storage{Kind: "memory"}
	c.Seals = append(c.Seals, Seal{Kind: "keyfile", Name: "keyfile"})
	c.DisableMlock = true
	c.Dev = &dev
	return nil
}
