package certificate

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Lifetimes of what the private authority issues.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	renewBefore   = 30 * 24 * time.Hour
	renewEvery    = time.Hour // how often the age is looked at
	backdate      = 5 * time.Minute
)

// File names below the authority's directory.
const (
	caFile        = "ca.pem" // 0644, for clients
	caKeyFile     = "ca.key" // 0600
	serverFile    = "server.pem"
	serverKeyFile = "server.key" // 0600
)

// Authority is a private certificate authority with one server certificate.
type Authority struct {
	dir     string
	names   []string
	log     *slog.Logger
	ca      *x509.Certificate
	key     crypto.Signer
	current atomic.Pointer[tls.Certificate]
}

// Open opens the authority in dir, and makes one when there is none. Its server
// certificate is for localhost, the loopback addresses, the machine's name and
// names; it is issued anew when a name is missing from it or when it expires
// within 30 days. Call Renew to keep it so.
func Open(dir string, names []string, log *slog.Logger) (*Authority, error) {
	a := &Authority{dir: dir, names: serverNames(names), log: log}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the TLS directory: %w", err)
	}
	if err := a.openCA(); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(a.path(serverFile), a.path(serverKeyFile))
	if err == nil && a.fits(pair.Leaf, time.Now()) {
		a.current.Store(&pair)
		return a, nil
	}
	return a, a.issue(time.Now())
}

// CAFile is the path of the authority's certificate, which clients trust.
func (a *Authority) CAFile() string { return a.path(caFile) }

// Certificate returns the server certificate.
func (a *Authority) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return a.current.Load(), nil
}

// Clients returns nil: the private authority issues no client certificates.
func (a *Authority) Clients() *x509.CertPool { return nil }

// Expiry is when the server certificate expires.
func (a *Authority) Expiry() time.Time { return a.current.Load().Leaf.NotAfter }

// Renew keeps the server certificate from expiring, until ctx ends.
func (a *Authority) Renew(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if a.fits(a.current.Load().Leaf, time.Now()) {
			continue
		}
		if err := a.issue(time.Now()); err != nil {
			a.log.Error("the TLS certificate could not be renewed", "expires", a.Expiry(), "error", err)
			continue
		}
		a.log.Info("the TLS certificate was renewed", "expires", a.Expiry())
	}
}

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }

// openCA reads the authority, or makes one when neither of its files is there.
func (a *Authority) openCA() error {
	pair, err := tls.LoadX509KeyPair(a.path(caFile), a.path(caKeyFile))
	_, missingCert := os.Lstat(a.path(caFile))
	_, missingKey := os.Lstat(a.path(caKeyFile))
	switch {
	case err == nil:
		if time.Now().After(pair.Leaf.NotAfter) {
			return fmt.Errorf("the private authority in %s expired on %s; move %s and %s away to have a new one made, and give clients the new %s",
				a.dir, pair.Leaf.NotAfter.Format(time.DateOnly), caFile, caKeyFile, caFile)
		}
		a.ca, a.key = pair.Leaf, pair.PrivateKey.(crypto.Signer)
		return nil
	case errors.Is(missingCert, fs.ErrNotExist) && errors.Is(missingKey, fs.ErrNotExist):
		return a.makeCA()
	case errors.Is(missingKey, fs.ErrNotExist):
		// The key is written first, so this is no interrupted first start.
		return fmt.Errorf("%s is there and its key %s is not; restore the key, or move %s away to have a new authority made",
			a.path(caFile), caKeyFile, caFile)
	case errors.Is(missingCert, fs.ErrNotExist):
		return a.makeCA() // a first start that was interrupted; nobody trusts that key yet
	}
	return fmt.Errorf("the private authority in %s cannot be read; restore %s and %s, or move both away to have a new one made: %w",
		a.dir, caFile, caKeyFile, err)
}

func (a *Authority) makeCA() error {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Coffer private authority " + now.UTC().Format(time.DateOnly), Organization: []string{"Coffer"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority's key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make the authority: %w", err)
	}
	if a.ca, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("read back the authority: %w", err)
	}
	a.key = key
	return a.save(caFile, caKeyFile, [][]byte{der}, key)
}

// issue makes a new server certificate and puts it into use.
func (a *Authority) issue(now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the server's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: a.names[0], Organization: []string{"Coffer"}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(serverLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range a.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("issue the server's certificate: %w", err)
	}
	chain := [][]byte{der, a.ca.Raw}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("read back the server's certificate: %w", err)
	}
	if err := a.save(serverFile, serverKeyFile, chain, key); err != nil {
		return err
	}
	a.current.Store(&tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf})
	return nil
}

// fits reports whether a server certificate can stay in use at a time.
func (a *Authority) fits(leaf *x509.Certificate, now time.Time) bool {
	if leaf == nil || leaf.CheckSignatureFrom(a.ca) != nil || now.Before(leaf.NotBefore) || now.Add(renewBefore).After(leaf.NotAfter) {
		return false
	}
	return !slices.ContainsFunc(a.names, func(name string) bool { return leaf.VerifyHostname(name) != nil })
}

// save writes a key and then its chain, each by a rename, so that a crash leaves
// the old file or the new one. A pair that does not match is issued anew.
func (a *Authority) save(certName, keyName string, chain [][]byte, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s: %w", keyName, err)
	}
	if err := write(a.path(keyName), 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return err
	}
	var text []byte
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return write(a.path(certName), 0o644, text)
}

func write(path string, mode fs.FileMode, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// serverNames are the names a server is reached by on its own machine, the
// machine's name, and the given ones.
func serverNames(given []string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, strings.ToLower(host))
	}
	for _, name := range given {
		if name = strings.ToLower(strings.Trim(name, "[] ")); name != "" && name != "0.0.0.0" && name != "::" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
