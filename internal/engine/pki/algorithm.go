package pki

import (
	"crypto/x509"

	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
)

// listAlgorithms are the algorithms that an issuer can be told to sign its lists and
// answers with.
var listAlgorithms = map[string]struct {
	bits int
	pss  bool
}{
	"SHA256WithRSA": {256, false}, "SHA384WithRSA": {384, false}, "SHA512WithRSA": {512, false},
	"SHA256WithRSAPSS": {256, true}, "SHA384WithRSAPSS": {384, true}, "SHA512WithRSAPSS": {512, true},
}

// listAlgorithm is how an issuer signs its lists and answers.
func listAlgorithm(i *issuer) (x509.SignatureAlgorithm, error) {
	how, rsa := listAlgorithms[i.CRLAlgorithm]
	if rsa && i.cert.PublicKeyAlgorithm != x509.RSA {
		return 0, fault.New(fault.Invalid, "revocation_signature_algorithm: %s is for RSA keys", i.CRLAlgorithm)
	}
	a, err := key.Algorithm(i.cert.PublicKey, how.bits, how.pss)
	if err == nil && i.CRLAlgorithm != "" && !rsa && a.String() != i.CRLAlgorithm && map[string]x509.SignatureAlgorithm{
		"ECDSAWithSHA256": x509.ECDSAWithSHA256, "ECDSAWithSHA384": x509.ECDSAWithSHA384, "ECDSAWithSHA512": x509.ECDSAWithSHA512, "Ed25519": x509.PureEd25519,
	}[i.CRLAlgorithm] != a {
		return 0, fault.New(fault.Invalid, "revocation_signature_algorithm: %q does not suit the issuer's key", shown(i.CRLAlgorithm))
	}
	return a, err
}
