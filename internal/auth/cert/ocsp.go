package cert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/fault"
)

// Limits of OCSP.
const (
	maxOCSP     = 64 << 10 // bytes of an answer
	maxServers  = 5        // asked for one certificate
	maxKept     = time.Hour
	clockSkew   = 5 * time.Minute
	ocspTimeout = 15 * time.Second // for all servers together
)

// askOCSP refuses a certificate that its authority revoked, and one of which
// nobody says that it is good, unless the role lets that pass.
func (m *Method) askOCSP(ctx context.Context, role *trusted, chain []*x509.Certificate) error {
	if !role.OCSP.Enabled {
		return nil
	}
	status, err := m.status(ctx, role, chain)
	switch {
	case err == nil && status == ocsp.Good:
		return nil
	case err == nil && status == ocsp.Revoked:
		return fault.New(fault.Invalid, "the certificate was revoked: its authority's OCSP server says so")
	case bool(role.FailOpen):
		m.log.Warn("a certificate is accepted although no OCSP server calls it good", "role", role.name, "error", err)
		return nil
	case err == nil:
		err = errors.New("the OCSP server does not know it")
	}
	return fault.Wrap(fault.Invalid, err, "whether the certificate was revoked cannot be learned from OCSP; see the server's log, or set ocsp_fail_open")
}

// status is what the servers say of a chain's leaf.
func (m *Method) status(ctx context.Context, role *trusted, chain []*x509.Certificate) (int, error) {
	if len(chain) < 2 {
		return 0, errors.New("who issued it is not known; put the authority behind it into the role's certificate")
	}
	leaf, issuer := chain[0], chain[1]
	servers := leaf.OCSPServer
	if len(role.Servers) > 0 {
		servers = role.Servers
	}
	if len(servers) == 0 {
		return 0, errors.New("it names no OCSP server, and the role has none in ocsp_servers_override")
	}
	settings, err := m.settings(ctx)
	if err != nil {
		return 0, err
	}
	key := answerKey(role, leaf, issuer)
	if status, ok := m.answers.get(key); ok {
		return status, nil
	}
	ctx, cancel := context.WithTimeout(ctx, ocspTimeout)
	defer cancel()
	good, until := false, time.Now().Add(maxKept)
	for _, server := range servers[:min(len(servers), maxServers)] {
		var answer *ocsp.Response
		if answer, err = askServer(ctx, role, server, leaf, issuer); err != nil {
			if role.QueryAll {
				return 0, err
			}
			continue
		}
		if answer.NextUpdate.Before(until) {
			until = answer.NextUpdate
		}
		good = answer.Status == ocsp.Good
		if !good || !bool(role.QueryAll) {
			m.answers.put(key, answer.Status, until, settings.OCSPCacheSize)
			return answer.Status, nil
		}
	}
	if good {
		m.answers.put(key, ocsp.Good, until, settings.OCSPCacheSize)
		return ocsp.Good, nil
	}
	return 0, err
}

// askServer asks one server, more than once when it is away.
func askServer(ctx context.Context, role *trusted, server string, leaf, issuer *x509.Certificate) (*ocsp.Response, error) {
	request, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	for try := range int(role.MaxRetries) + 1 {
		var raw []byte
		raw, err = remote.Question{
			URL: server, Post: request, Type: "application/ocsp-request", Accept: "application/ocsp-response", Limit: maxOCSP,
		}.Ask(ctx)
		if err == nil {
			return parseAnswer(raw, role, leaf, issuer, time.Now())
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Duration(try+1) * 50 * time.Millisecond):
		}
	}
	return nil, fmt.Errorf("an OCSP server: %w", err)
}

// parseAnswer reads an answer that the issuer signed, somebody it named for that,
// or a responder that the role names.
func parseAnswer(raw []byte, role *trusted, leaf, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	answer, err := ocsp.ParseResponseForCert(raw, leaf, issuer)
	for _, responder := range role.responders {
		if err == nil {
			break
		}
		answer, err = ocsp.ParseResponseForCert(raw, leaf, responder)
	}
	if err != nil {
		return nil, errors.New("an OCSP server's answer is not one, or is signed by somebody else")
	}
	switch {
	case !maySign(answer.Certificate, issuer, role.responders, now):
		return nil, errors.New("an OCSP server's answer is signed by a certificate that may not sign such")
	case answer.ThisUpdate.After(now.Add(clockSkew)):
		return nil, errors.New("an OCSP server's answer is from the future")
	case !answer.NextUpdate.IsZero() && answer.NextUpdate.Before(now):
		return nil, errors.New("an OCSP server's answer is out of date")
	case role.MaxAge > 0 && now.Sub(answer.ThisUpdate) > role.MaxAge.Duration():
		return nil, errors.New("an OCSP server's answer is older than ocsp_this_update_max_age")
	case answer.Status != ocsp.Good && answer.Status != ocsp.Revoked:
		return nil, errors.New("the OCSP server does not know the certificate")
	}
	return answer, nil
}

// maySign reports whether the certificate that an answer brings along may sign it:
// any that the authority issued could else (RFC 6960, 4.2.2.2).
func maySign(signer, issuer *x509.Certificate, responders []*x509.Certificate, now time.Time) bool {
	if signer == nil || bytes.Equal(signer.Raw, issuer.Raw) || slices.ContainsFunc(responders, signer.Equal) {
		return true
	}
	return slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) && !now.Before(signer.NotBefore) && !now.After(signer.NotAfter)
}

// answerKey names what an answer is about and who was asked.
func answerKey(role *trusted, leaf, issuer *x509.Certificate) [32]byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(role.name), role.row, leaf.Raw, issuer.Raw} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// answers keeps what OCSP servers said.
type answers struct {
	mu    sync.Mutex
	known map[[32]byte]answered
}

type answered struct {
	status int
	until  time.Time
}

func (a *answers) get(key [32]byte) (status int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.known[key]
	return known.status, ok && time.Now().Before(known.until)
}

// put keeps an answer. One that says no end is not kept.
func (a *answers) put(key [32]byte, status int, until time.Time, most int) {
	if !time.Now().Before(until) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = map[[32]byte]answered{}
	}
	for old := range a.known {
		if len(a.known) < most {
			break
		}
		// Which of those that still hold goes is left to chance.
		delete(a.known, old)
	}
	a.known[key] = answered{status, until}
}
