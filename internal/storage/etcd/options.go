package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Kind declares the engine.
var Kind = storage.Kind{
	Name: "etcd",
	Doc: "An etcd cluster (3.4 or later), for any number of servers. " +
		"address: the members' client URLs, with commas between (http://127.0.0.1:2379); ETCD_ADDR in the environment counts before it. " +
		"path: what all keys begin with (coffer/). " +
		"username and password: the etcd user, who needs the permission readwrite on all keys below path; " +
		"ETCD_USERNAME and ETCD_PASSWORD in the environment count before them. " +
		"tls_ca_file: the authorities that sign the members' certificates (those of the system). " +
		"tls_cert_file and tls_key_file: this server's certificate, for members that want one. " +
		"request_timeout: after how long without an answer the cluster counts as away (5s). " +
		"Run the members with --auto-compaction-retention, so that old revisions do not fill them.",
	Open: func(ctx context.Context, settings map[string]string, log *slog.Logger) (storage.Engine, error) {
		o, err := parse(settings, os.Getenv)
		if err != nil {
			return nil, err
		}
		o.Logger = log
		return open(ctx, o)
	},
}

// open returns no engine, not even one that is nil, with an error.
func open(ctx context.Context, o Options) (storage.Engine, error) {
	e, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Options say where and how to open a store.
type Options struct {
	Endpoints      []string      // URLs of the members, all http or all https; none is http://127.0.0.1:2379
	Path           string        // what keys begin with; "" is coffer/, and a / is added at the end
	Username       string        // "" for a cluster without authentication
	Password       string        // of the user
	CAFile         string        // PEM; "" is the system's authorities
	CertFile       string        // PEM of a client certificate, with KeyFile
	KeyFile        string        // PEM
	RequestTimeout time.Duration // 0 is 5 s
	Logger         *slog.Logger  // nil is slog.Default
}

func (o Options) withDefaults() Options {
	if len(o.Endpoints) == 0 {
		o.Endpoints = []string{"http://127.0.0.1:2379"}
	}
	if o.Path == "" {
		o.Path = "coffer"
	}
	if !strings.HasSuffix(o.Path, "/") {
		o.Path += "/"
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// exposed reports whether a member on another machine is reached without TLS.
func (o Options) exposed() bool {
	return slices.ContainsFunc(o.Endpoints, func(endpoint string) bool {
		u, err := url.Parse(endpoint)
		if err != nil {
			return false
		}
		ip := net.ParseIP(u.Hostname())
		return u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
	})
}

const settingNames = "address, path, username, password, tls_ca_file, tls_cert_file, tls_key_file and request_timeout"

// foreign are settings of Vault's engine that are not Coffer's, and why.
var foreign = map[string]string{
	"ha_enabled":    "every server is active; remove it",
	"etcd_api":      "version 3 is the one there is; remove it",
	"sync":          "the members are those in address; remove it",
	"discovery_srv": "write the members into address",
	"lock_timeout":  "there is no lock; remove it",
}

func parse(settings map[string]string, getenv func(string) string) (Options, error) {
	var o Options
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := o.set(name, settings[name]); err != nil {
			return Options{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if text := getenv("ETCD_ADDR"); text != "" {
		if err := o.set("address", text); err != nil {
			return Options{}, fmt.Errorf("ETCD_ADDR: %w", err)
		}
	}
	for variable, field := range map[string]*string{"ETCD_USERNAME": &o.Username, "ETCD_PASSWORD": &o.Password} {
		if text := getenv(variable); text != "" {
			*field = text
		}
	}
	if o.Password != "" && o.Username == "" {
		return Options{}, errors.New("username: there is a password and no user; name one here or in ETCD_USERNAME")
	}
	if o.Username != "" && o.Password == "" {
		return Options{}, errors.New("password: there is a user and no password; give it here or, better, in ETCD_PASSWORD")
	}
	_, err := o.tlsConfig()
	return o, err
}

func (o *Options) set(name, value string) (err error) {
	switch name {
	case "address":
		o.Endpoints, err = parseAddress(value)
	case "path":
		if strings.Trim(value, "/") == "" || len(value) > 256 || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%q must be 1 to 256 bytes, not only slashes, and without NUL", value)
		}
		o.Path = value
	case "username":
		o.Username = value
	case "password":
		o.Password = value
	case "tls_ca_file":
		o.CAFile = value
	case "tls_cert_file":
		o.CertFile = value
	case "tls_key_file":
		o.KeyFile = value
	case "request_timeout":
		o.RequestTimeout, err = parseTimeout(value)
	default:
		if why, ok := foreign[name]; ok {
			return fmt.Errorf("storage \"etcd\" has no such setting: %s", why)
		}
		return fmt.Errorf("storage \"etcd\" has no such setting; it has %s", settingNames)
	}
	return err
}

// parseAddress reads client URLs with commas between; host:port means http.
func parseAddress(text string) (urls []string, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") {
			part = "http://" + part
		}
		u, err := url.Parse(part)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, fmt.Errorf("%q is no address of a member, such as https://etcd-1:2379", strings.TrimSpace(part))
		}
		if u.User != nil {
			return nil, errors.New("a user and password do not go into the address; there are the settings username and password")
		}
		host := u.Host
		if u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), "2379")
		}
		urls = append(urls, u.Scheme+"://"+host)
	}
	for _, u := range urls {
		if strings.HasPrefix(u, "https:") != strings.HasPrefix(urls[0], "https:") {
			return nil, errors.New("some members have http and some https")
		}
	}
	return urls, nil
}

// parseTimeout reads a duration such as 5s, or a whole number of seconds.
func parseTimeout(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		text = strconv.FormatUint(n, 10) + "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 5s", text)
	}
	if d < 100*time.Millisecond || d > 5*time.Minute {
		return 0, fmt.Errorf("%v is not between 100ms and 5m", d)
	}
	return d, nil
}

// secure says whether the members are reached over TLS.
func (o Options) secure() bool {
	return len(o.Endpoints) > 0 && strings.HasPrefix(o.Endpoints[0], "https:")
}

// tlsConfig returns nil for members without TLS. Its error names the setting.
func (o Options) tlsConfig() (*tls.Config, error) {
	if !o.secure() {
		for name, file := range map[string]string{"tls_ca_file": o.CAFile, "tls_cert_file": o.CertFile, "tls_key_file": o.KeyFile} {
			if file != "" {
				return nil, fmt.Errorf("%s: the address has no https://, so that TLS would not be used", name)
			}
		}
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls_ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca_file: %s holds no certificate in PEM", o.CAFile)
		}
	}
	if o.CertFile == "" && o.KeyFile == "" {
		return c, nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return nil, errors.New("tls_cert_file: it goes together with tls_key_file, and one of them is missing")
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		return &pair, err
	}
	if _, err := load(); err != nil {
		return nil, fmt.Errorf("tls_cert_file: %w", err)
	}
	// Read for each connection, so that a renewed certificate is used.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return c, nil
}
