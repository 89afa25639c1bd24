// Package config reads the server's configuration: HCL or JSON files with
// Vault's keys wherever the same thing is meant, and a few variables of the
// environment. It gives one typed, checked Config, or errors that name file,
// line and field and say what is accepted.
//
// It opens nothing and starts nothing: that is package app's. What can be
// changed while the server runs (mounts, policies, quotas) is not here but in
// storage, behind the API.
package config

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"time"

	"github.com/cofferhq/coffer/internal/wire"
)

// Defaults.
const (
	DefaultAddress    = "127.0.0.1:8200"
	DefaultLeaseTTL   = 768 * time.Hour
	DefaultMaxPayload = 1 << 20 // bytes
)

// Config is the whole configuration, checked.
type Config struct {
	Listeners []Listener // at least one
	Storage   Storage
	Seals     []Seal // at least one
	Audit     Audit
	Telemetry Telemetry
	Backup    Backup
	Lockouts  []Lockout

	// DataDir is the directory of what belongs to this node alone: its audit log,
	// its private certificate authority, its name. The embedded engine's directory
	// unless said otherwise.
	DataDir string
	NodeID  string // tells this node from the others; "" makes one and keeps it in DataDir

	APIAddr     string // how clients reach this server, "" when not said
	ClusterAddr string
	ClusterName string

	DefaultLeaseTTL    time.Duration
	MaxLeaseTTL        time.Duration
	MaxRequestDuration time.Duration // 90 s
	MaxPayloadSize     int64         // bytes of one secret's data
	// StaleReads is how old the answers may be that reads get, marked as stale,
	// while the storage engine cannot be reached; 0 refuses such reads.
	StaleReads time.Duration

	LogLevel  slog.Level
	LogFormat string // "standard" or "json"
	LogFile   string // "" logs to standard error
	PIDFile   string

	UI           bool
	DisableMlock bool
	DisableCache bool
	CacheSize    int64 // bytes of the engine's cache; 0 is the engine's default

	Dev *Dev // set for a development server

	// Notices say what stands in the files and is not used, and why.
	Notices []string
}

// Storage is where everything is kept.
type Storage struct {
	Kind     string   // "pebble", "memory" for a development server, or an engine on the network
	Path     string   // the embedded engine's directory
	Settings Settings // what an engine on the network is told
}

// Settings are an engine's, as written; one may be a password.
type Settings map[string]string

// Format keeps the values out of whatever prints a configuration.
func (s Settings) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "(%d settings)", len(s))
}

// Listener is one place where the API is served.
type Listener struct {
	Kind    string // "tcp" or "unix"
	Address string // host:port, or the socket's path
	TLS     TLS

	SocketMode  fs.FileMode // of a unix socket; 0600
	SocketUser  string      // "" leaves the owner
	SocketGroup string

	ReadTimeout       time.Duration // 0 leaves it to the handler's body rate
	ReadHeaderTimeout time.Duration // 10 s
	WriteTimeout      time.Duration // 0 follows MaxRequestDuration
	IdleTimeout       time.Duration // 5 min

	MaxRequestSize     int64         // bytes; 0 follows MaxPayloadSize
	MaxRequestDuration time.Duration // 0 is Config.MaxRequestDuration

	Forwarded            *Forwarded // nil believes no X-Forwarded-For
	RequireRequestHeader bool
	UnauthenticatedStats bool // sys/metrics without a token
	ResponseHeaders      map[string]map[string][]string
}

// TLSMode is where a listener's certificate comes from.
type TLSMode uint8

// The TLS modes.
const (
	TLSPrivate TLSMode = iota // a private authority in the data directory
	TLSFiles                  // the files given
	TLSOff                    // plain HTTP
)

// TLS is a listener's TLS.
type TLS struct {
	Mode     TLSMode
	Cert     string             // file, in TLSFiles
	Key      string             // file, in TLSFiles
	ClientCA string             // file; "" leaves client certificates to auth methods
	Auth     tls.ClientAuthType // tls.RequestClientCert unless the settings say otherwise
	Min, Max uint16             // tls.VersionTLS12 or later; Max 0 is the newest
	Ciphers  []uint16           // for TLS 1.2; nil is Go's choice
	Names    []string           // more names for the private authority's certificate
	Dir      string             // of the private authority; "" is "tls" in the data directory
}

// Forwarded says how X-Forwarded-For is read.
type Forwarded struct {
	Authorized          []netip.Prefix
	HopSkips            int
	RejectNotPresent    bool
	RejectNotAuthorized bool
}

// Seal wraps the root key. Which fields count depends on the kind.
type Seal struct {
	Kind     string // "keyfile", "shamir" or "pkcs11"
	Name     string // distinguishes several of a kind; the kind when not given
	Disabled bool   // only opens, while migrating away from it
	Path     string // keyfile: the file; "" is "seal.key" in the data directory

	Lib         string // pkcs11: the module, a shared library
	TokenLabel  string
	Slot        string // pkcs11: the slot's number, instead of TokenLabel
	PIN         wire.Secret
	PINFile     string // pkcs11: the file that holds the PIN, instead of PIN
	PINEnv      string // pkcs11: the variable that holds the PIN, instead of PIN
	KeyLabel    string
	GenerateKey bool // pkcs11: make the key when it is not there
}

// Audit is the audit log.
type Audit struct {
	Path        string // its directory; "" is "audit" in the data directory
	SyncReads   bool   // plain reads wait for the disk too; true
	SegmentSize int64  // bytes; 0 is the log's default
	Reserve     int64  // bytes of disk held back for the last entries; 0 is the log's default
	AcceptLoss  int    // size of a stored checkpoint that the log no longer reaches and that is given up; 0 gives nothing up
}

// Backup says where backups are put on a schedule; without a directory there is
// none.
type Backup struct {
	Directory string
	Every     time.Duration // at least a minute
	Keep      int           // how many are kept; 0 is no bound
	KeepFor   time.Duration // how long each is kept; 0 is no bound
}

// Telemetry is what is measured and how it is named.
type Telemetry struct {
	Retention       time.Duration // accepted; metrics are kept as long as the server runs
	DisableHostname bool
	UsageGauge      time.Duration // how often gauges are taken anew
}

// Lockout overrides after how many failures a login is locked.
type Lockout struct {
	Kind         string // "all", or the auth method
	Threshold    int
	Duration     time.Duration
	CounterReset time.Duration
	Disabled     bool
}

// Default is the configuration before any file is read. It has no storage.
func Default() *Config {
	return &Config{
		DefaultLeaseTTL: DefaultLeaseTTL, MaxLeaseTTL: DefaultLeaseTTL, MaxRequestDuration: 90 * time.Second,
		MaxPayloadSize: DefaultMaxPayload, LogFormat: "standard", UI: true,
		Audit: Audit{SyncReads: true},
	}
}

// defaultListener is a listener of a kind before its block is read.
func defaultListener(kind string) Listener {
	l := Listener{Kind: kind, SocketMode: 0o600, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute}
	l.TLS.Min, l.TLS.Auth = tls.VersionTLS12, tls.RequestClientCert
	if kind == "unix" {
		l.TLS.Mode = TLSOff
	} else {
		l.Address = DefaultAddress
	}
	return l
}
