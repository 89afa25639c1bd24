// Package key makes, reads and writes the private keys of a certificate authority
// and of those it certifies, and says which public keys are fit to be certified:
// RSA of 2048 to 8192 bits, the curves P-256, P-384 and P-521, and Ed25519.
package key

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
)

// The types of keys, as they are called on the wire.
const (
	RSA     = "rsa"
	EC      = "ec"
	Ed25519 = "ed25519"
	Any     = "any" // of a role that signs for every type
)

// Bounds of RSA keys. Larger ones take seconds for one signature.
const (
	MinRSA = 2048
	MaxRSA = 8192
)

// Kind is a type of key and its size; the size of Ed25519 is 0.
type Kind struct {
	Type string
	Bits int
}

// Complete returns the kind with the size that is meant where none is given, and
// refuses kinds that are not made here.
func (k Kind) Complete() (Kind, error) {
	if k.Type == "" {
		k.Type = RSA
	}
	switch k.Type {
	case RSA:
		if k.Bits == 0 {
			k.Bits = MinRSA
		}
		if !slices.Contains([]int{2048, 3072, 4096, 8192}, k.Bits) {
			return k, fault.New(fault.Invalid, "key_bits: an RSA key has 2048, 3072, 4096 or 8192 bits, not %d", k.Bits)
		}
	case EC:
		if k.Bits == 0 {
			k.Bits = 256
		}
		if curve(k.Bits) == nil {
			return k, fault.New(fault.Invalid, "key_bits: an EC key has 256, 384 or 521 bits, not %d", k.Bits)
		}
	case Ed25519:
		k.Bits = 0
	case Any:
		if k.Bits != 0 && (k.Bits < 256 || k.Bits > MaxRSA) {
			return k, fault.New(fault.Invalid, "key_bits: %d is no size of a key", k.Bits)
		}
	default:
		return k, fault.New(fault.Invalid, "key_type is rsa, ec, ed25519 or any, not %q", k.Type)
	}
	return k, nil
}

func curve(bits int) elliptic.Curve {
	switch bits {
	case 256:
		return elliptic.P256()
	case 384:
		return elliptic.P384()
	case 521:
		return elliptic.P521()
	}
	return nil
}

// Generate makes a key.
func (k Kind) Generate() (crypto.Signer, error) {
	k, err := k.Complete()
	if err != nil {
		return nil, err
	}
	switch k.Type {
	case RSA:
		return rsa.GenerateKey(rand.Reader, k.Bits)
	case EC:
		return ecdsa.GenerateKey(curve(k.Bits), rand.Reader)
	case Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fault.New(fault.Invalid, "key_type %q says not which key to make: it is for signing requests only; name rsa, ec or ed25519 to have keys made", k.Type)
}

// Of returns the kind of a public key, or refuses one that is not fit to be
// certified.
func Of(public any) (Kind, error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		bits := p.N.BitLen()
		if bits < MinRSA || bits > MaxRSA {
			return Kind{}, fault.New(fault.Invalid, "an RSA key of %d bits is not accepted: it has %d to %d", bits, MinRSA, MaxRSA)
		}
		if p.E < 3 || p.E%2 == 0 || p.N.Bit(0) == 0 {
			return Kind{}, fault.New(fault.Invalid, "the RSA key is not accepted: its exponent or modulus is none of a sound key")
		}
		return Kind{RSA, bits}, nil
	case *ecdsa.PublicKey:
		bits := p.Curve.Params().BitSize
		if c := curve(bits); c == nil || c != p.Curve {
			return Kind{}, fault.New(fault.Invalid, "an EC key on the curve %s is not accepted: use P-256, P-384 or P-521", p.Curve.Params().Name)
		}
		return Kind{EC, bits}, nil
	case ed25519.PublicKey:
		if len(p) != ed25519.PublicKeySize {
			return Kind{}, fault.New(fault.Invalid, "the Ed25519 key has the wrong length")
		}
		return Kind{Type: Ed25519}, nil
	}
	return Kind{}, fault.New(fault.Invalid, "the type of the public key is not accepted: use RSA, EC or Ed25519")
}

// Admits refuses a key that somebody made for themselves where a kind is asked for:
// it has to be of the type, and at least as long.
func (k Kind) Admits(public any) error {
	got, err := Of(public)
	if err != nil {
		return err
	}
	if k.Type != Any && got.Type != k.Type {
		return fault.New(fault.Invalid, "role requires keys of type %s, and the request's is %s", k.Type, got.Type)
	}
	least := k.Bits
	if k.Type == Any {
		least = 0
	}
	if got.Type != Ed25519 && got.Bits < least {
		return fault.New(fault.Invalid, "role requires a minimum of a %d-bit key, but CSR's key is %d bits", least, got.Bits)
	}
	return nil
}

// ID is the subject key identifier of a public key, by RFC 7093 section 2 (1).
func ID(public any) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm asn1.RawValue
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Bits.Bytes)
	return sum[:20], nil
}

// Algorithm is how a key signs. bits are those of the hash: 256, 384 or 512, and 0
// for what suits the key.
func Algorithm(signer crypto.PublicKey, bits int, pss bool) (x509.SignatureAlgorithm, error) {
	k, err := Of(signer)
	if err != nil {
		return 0, err
	}
	if k.Type == Ed25519 {
		return x509.PureEd25519, nil
	}
	if k.Type == EC {
		// A hash that is longer than the curve is cut, so that it adds nothing.
		return map[int]x509.SignatureAlgorithm{256: x509.ECDSAWithSHA256, 384: x509.ECDSAWithSHA384, 521: x509.ECDSAWithSHA512}[k.Bits], nil
	}
	if bits == 0 {
		bits = 256
	}
	algorithms := map[int]x509.SignatureAlgorithm{256: x509.SHA256WithRSA, 384: x509.SHA384WithRSA, 512: x509.SHA512WithRSA}
	if pss {
		algorithms = map[int]x509.SignatureAlgorithm{256: x509.SHA256WithRSAPSS, 384: x509.SHA384WithRSAPSS, 512: x509.SHA512WithRSAPSS}
	}
	if algorithm, ok := algorithms[bits]; ok {
		return algorithm, nil
	}
	return 0, CheckBits(bits)
}

// CheckBits refuses what is no size of a hash that signatures are made with.
func CheckBits(bits int) error {
	if !slices.Contains([]int{0, 256, 384, 512}, bits) {
		return fault.New(fault.Invalid, "signature_bits is 256, 384 or 512, or 0 for what suits the key, not %d", bits)
	}
	return nil
}

// Formats in which certificates and keys are answered.
const (
	PEM    = "pem"
	DER    = "der"
	Bundle = "pem_bundle"
	PKCS8  = "pkcs8" // of private keys only
)

// CheckFormat refuses what is no format.
func CheckFormat(format, private string) error {
	if !slices.Contains([]string{"", PEM, DER, Bundle}, format) {
		return fault.New(fault.Invalid, "format is pem, der or pem_bundle, not %q", format)
	}
	if !slices.Contains([]string{"", DER, PEM, PKCS8}, private) {
		return fault.New(fault.Invalid, "private_key_format is der, pem or pkcs8, not %q", private)
	}
	return nil
}

// Encode writes a private key: PEM of the type's own form, as Vault has it, or of
// PKCS #8; base64 of DER where the format is der.
func Encode(signer crypto.Signer, format, private string) (string, error) {
	label, der, err := marshal(signer, private == PKCS8)
	if err != nil {
		return "", err
	}
	if format == DER && (private == "" || private == DER) {
		return base64.StdEncoding.EncodeToString(der), nil
	}
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))), nil
}

func marshal(signer crypto.Signer, pkcs8 bool) (label string, der []byte, err error) {
	if !pkcs8 {
		switch k := signer.(type) {
		case *rsa.PrivateKey:
			return "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k), nil
		case *ecdsa.PrivateKey:
			der, err = x509.MarshalECPrivateKey(k)
			return "EC PRIVATE KEY", der, err
		}
	}
	der, err = x509.MarshalPKCS8PrivateKey(signer)
	return "PRIVATE KEY", der, err
}

// Parse reads a private key from a PEM block's bytes, in any form that is in use,
// and refuses one that is not fit to be certified.
func Parse(block *pem.Block) (crypto.Signer, error) {
	var private any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fault.New(fault.Invalid, "a PEM block %q is no private key; an encrypted one has to be decrypted first", label(block.Type))
	}
	signer, ok := private.(crypto.Signer)
	if err != nil || !ok {
		// The parser's own words could repeat parts of the key.
		return nil, fault.New(fault.Invalid, "the private key cannot be read")
	}
	if _, err := Of(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// label is a PEM label that is fit to be shown.
func label(s string) string {
	if len(s) > 40 {
		s = s[:40]
	}
	return strings.ToValidUTF8(s, "?")
}

// Same reports whether two public keys are one.
func Same(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}
