package cert

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Login asks to log in.
type Login struct {
	Name string `json:"name" doc:"The role; without it, all roles are tried in the order of their names."`
}

func errUnknown() error {
	return fault.New(fault.Invalid, "invalid certificate or no client certificate supplied")
}

func errUnfit() error {
	return fault.New(fault.Invalid, "no chain matching all constraints could be found for this login certificate")
}

func (m *Method) login(ctx context.Context, by route.Caller, in Login) (auth.Login, error) {
	settings, err := m.settings(ctx)
	if err != nil {
		return auth.Login{}, err
	}
	role, err := m.prove(ctx, by.Peer, in.Name)
	if err != nil {
		return auth.Login{}, settings.explain(err, by.Peer)
	}
	leaf := by.Peer[0]
	metadata, err := role.extensions(leaf)
	if err != nil {
		return auth.Login{}, err
	}
	maps.Copy(metadata, about(leaf))
	metadata["cert_name"] = role.name
	out := auth.Login{
		Alias: leaf.Subject.CommonName, DisplayName: m.name + "-" + role.DisplayName, Policies: role.PolicyNames,
		Metadata: metadata, Binding: fingerprint(leaf), TokenParams: role.TokenParams,
	}
	if !settings.AliasMetadata {
		out.AliasMetadata = map[string]string{}
	}
	return out, nil
}

// settings are the method's as they were at most a second ago.
func (m *Method) settings(ctx context.Context) (Config, error) {
	row, err := m.recent(ctx, configKey)
	if errors.Is(err, storage.ErrNotFound) {
		return standard(), nil
	}
	if err != nil {
		return Config{}, err
	}
	c, err := storage.Decode[Config](configKey, row, nil)
	if err != nil {
		return Config{}, err
	}
	return *c, nil
}

// explain names the certificate that was refused, where the settings say so.
func (c Config) explain(err error, peer []*x509.Certificate) error {
	refused := fault.From(err)
	if !c.MetadataOnFailure || refused.Kind != fault.Invalid || len(peer) == 0 {
		return err
	}
	return fault.Wrap(refused.Kind, refused.Cause, "%s; the certificate has the common name %s and the serial number %s",
		refused.Message, quoted(peer[0].Subject.CommonName), quoted(peer[0].SerialNumber.String()))
}

// about is what a token's metadata says of its certificate.
func about(c *x509.Certificate) map[string]string {
	return map[string]string{
		"common_name": c.Subject.CommonName, "serial_number": c.SerialNumber.String(),
		"subject_key_id": colons(c.SubjectKeyId), "authority_key_id": colons(c.AuthorityKeyId),
	}
}

// colons is a key's id as people compare it: 0a:1b:2c.
func colons(id []byte) string {
	parts := make([]string, 0, len(id))
	for _, b := range id[:min(len(id), 64)] {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// prove returns the first role that accepts what a client presents; only the one
// of that name where name is not "".
func (m *Method) prove(ctx context.Context, peer []*x509.Certificate, name string) (*trusted, error) {
	if err := checkPresented(peer); err != nil {
		return nil, err
	}
	all, err := m.roles.get(ctx, m)
	if err != nil {
		return nil, err
	}
	names, pool := all.names, all.pool
	if name != "" {
		if name, err = auth.NameOf("role", name); err != nil {
			return nil, err
		}
		role := all.byName[name]
		if role == nil {
			return nil, errUnknown()
		}
		names, pool = []string{name}, role.pool
	}
	if err := valid(peer[0], time.Now()); err != nil {
		return nil, err
	}
	chains, err := verify(peer, pool)
	if err != nil {
		return nil, err
	}
	revoked, err := m.revoked.get(ctx, m)
	if err != nil {
		return nil, err
	}
	why := errUnknown()
	if len(chains) > 0 {
		why = errUnfit()
	}
	for _, name := range names {
		role := all.byName[name]
		for _, chain := range role.chainsOf(peer, chains) {
			if revoked.has(chain) || !role.fits(peer[0]) {
				why = errUnfit()
				continue
			}
			if err := m.askOCSP(ctx, role, chain); err != nil {
				why = err
				continue
			}
			return role, nil
		}
	}
	return nil, why
}

// valid refuses a certificate out of its time, whoever issued it, and one that
// asks for more than is understood here.
func valid(c *x509.Certificate, now time.Time) error {
	const words = "failed to verify client's certificate: "
	switch {
	case now.Before(c.NotBefore):
		return fault.New(fault.Invalid, words+"it is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fault.New(fault.Invalid, words+"it expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	case len(c.UnhandledCriticalExtensions) > 0:
		return fault.New(fault.Invalid, words+"it has a critical extension that is not understood")
	case !allowsClients(c):
		return fault.New(fault.Invalid, words+"its key usage does not allow clients")
	}
	return nil
}

// verify returns the chains from what is presented to the authorities, none when
// they did not issue it.
func verify(peer []*x509.Certificate, pool *x509.CertPool) ([][]*x509.Certificate, error) {
	if pool == nil {
		return nil, nil
	}
	between := x509.NewCertPool()
	for _, c := range peer[1:] {
		between.AddCert(c)
	}
	chains, err := peer[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return nil, nil
	case err != nil:
		// Its words may hold names of the certificate.
		return nil, fault.Wrap(fault.Invalid, nil, "failed to verify client's certificate: %s", reason(err))
	}
	return chains, nil
}

// reason is why a chain does not hold, without the names that are in it.
func reason(err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.Expired:
			return "a certificate of its chain has expired or is not valid yet"
		case x509.NameConstraintsWithoutSANs, x509.CANotAuthorizedForThisName, x509.UnconstrainedName, x509.TooManyConstraints:
			return "an authority of its chain may not issue for its names"
		case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
			return "its chain does not allow clients"
		case x509.TooManyIntermediates, x509.NotAuthorizedToSign:
			return "its chain has a certificate that may not issue the next"
		}
	}
	return "its chain cannot be verified"
}

// chainsOf are the chains by which the role trusts what is presented.
func (t *trusted) chainsOf(peer []*x509.Certificate, chains [][]*x509.Certificate) (mine [][]*x509.Certificate) {
	if t.leaf != nil {
		if t.leaf.Equal(peer[0]) {
			mine = append(mine, append([]*x509.Certificate{t.leaf}, t.chain...))
		}
		return mine
	}
	for _, chain := range chains {
		if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return t.isRoot[string(c.Raw)] }) {
			mine = append(mine, chain)
		}
	}
	return mine
}

// Renew implements auth.Renewer: a token is renewed for whoever holds the
// certificate of its login, which the role must still accept.
func (m *Method) Renew(ctx context.Context, by route.Caller, granted auth.Login) (auth.Login, error) {
	name := granted.Metadata["cert_name"]
	role, err := m.find(ctx, Named{name})
	switch {
	case err != nil:
		return granted, err
	case role == nil:
		return granted, fault.New(fault.Denied, "the role was deleted, not renewing")
	case !slices.Equal(role.PolicyNames, auth.Policies(granted.Policies)):
		return granted, fault.New(fault.Denied, "policies have changed, not renewing")
	}
	settings, err := m.config(ctx)
	if err != nil {
		return granted, err
	}
	if !settings.DisableBinding {
		if _, err := m.prove(ctx, by.Peer, name); err != nil {
			return granted, err
		}
		if fingerprint(by.Peer[0]) != granted.Binding {
			return granted, fault.New(fault.Denied, "client identity during renewal not matching client identity used during login: renew with the certificate of the login, or log in again")
		}
	}
	granted.TTL, granted.MaxTTL, granted.Period = role.TTL, role.MaxTTL, role.Period
	return granted, nil
}
