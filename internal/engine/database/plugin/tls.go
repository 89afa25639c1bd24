package plugin

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/cofferhq/coffer/internal/fault"
)

// TLSConfig is how a server of a name is reached over TLS by settings.
func (s Settings) TLSConfig(name string) (*tls.Config, error) {
	c := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.InsecureTLS}
	if s.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(s.CA)) {
			return nil, fault.New(fault.Invalid, "tls_ca holds no certificate in PEM")
		}
	}
	if s.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(s.Certificate), []byte(s.Certificate))
		if err != nil {
			return nil, fault.New(fault.Invalid, "tls_certificate_key is not a certificate and its key in PEM")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
