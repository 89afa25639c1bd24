package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/pki/key"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// The book is the one row that lists a mount's issuers and keys, so that what is
// said of them together (names, the default ones, who signed whom) is of one moment.
// The keys themselves are rows of their own.

// Bounds of the book.
const (
	maxIssuers = 200
	maxKeys    = 200
	maxBook    = 900 << 10
)

// bookText is the row.
type bookText struct {
	Issuers       []*issuer   `json:"issuers"`
	Keys          []*keyEntry `json:"keys"`
	DefaultIssuer string      `json:"default_issuer,omitempty"`
	DefaultKey    string      `json:"default_key,omitempty"`
	FollowLatest  bool        `json:"default_follows_latest_issuer,omitempty"`
}

// book is the row, and what follows from it. It is not changed once it is read.
type book struct {
	bookText
	raw []byte
}

// keyEntry is a key, without what is secret of it.
type keyEntry struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Type   string `json:"type"`
	Bits   int    `json:"bits,omitempty"`
	Public []byte `json:"public"` // SubjectPublicKeyInfo
}

// secretKey is the row of a key.
type secretKey struct {
	PKCS8 []byte `json:"pkcs8"`
}

func (k *secretKey) signer() (crypto.Signer, error) {
	private, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	if err != nil {
		return nil, errors.New("a key's row is damaged")
	}
	s, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("a key's row holds no key that signs")
	}
	return s, nil
}

// issuer is a certificate that may sign others, and how it is to.
type issuer struct {
	ID           string    `json:"id"`
	Name         string    `json:"name,omitempty"`
	Key          string    `json:"key,omitempty"`
	Certificate  []byte    `json:"certificate"`
	Manual       []string  `json:"manual_chain,omitempty"`
	Behavior     string    `json:"leaf_not_after_behavior"`
	Usage        []string  `json:"usage"`
	CRLAlgorithm string    `json:"revocation_signature_algorithm,omitempty"`
	URLs         addresses `json:"urls,omitzero"`
	Revoked      time.Time `json:"revoked,omitzero"`
	cert         *x509.Certificate
	pem          string
	chain        []*issuer // from itself up to its root, as far as it is known
	authority    string
}

// Behaviors of an issuer that is asked for a certificate that would outlive it.
const (
	behaviorErr      = "err"
	behaviorTruncate = "truncate"
	behaviorPermit   = "permit"
	behaviorAlways   = "always_enforce_err"
)

// Usages of issuers.
const (
	usageRead  = "read-only"
	usageIssue = "issuing-certificates"
	usageCRL   = "crl-signing"
	usageOCSP  = "ocsp-signing"
)

var allUsages = []string{usageRead, usageIssue, usageCRL, usageOCSP}

// may reports whether the issuer may be used for something.
func (i *issuer) may(usage string) bool { return slices.Contains(i.Usage, usage) }

// authorityOf names the pair of a subject and a key: issuers that share both, such as
// cross-signed ones, have their revoked certificates in one list.
func authorityOf(c *x509.Certificate) string {
	h := sha256.New()
	h.Write(c.RawSubject)
	h.Write(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// readBook reads the row; nil is an empty book.
func readBook(raw []byte) (*book, error) {
	b := &book{raw: raw}
	if len(raw) == 0 {
		return b, nil
	}
	if err := json.Unmarshal(raw, &b.bookText); err != nil {
		return nil, fmt.Errorf("row %q: %w", bookRow, err)
	}
	return b, b.link()
}

// link works out what follows from the row.
func (b *book) link() error {
	for _, i := range b.Issuers {
		var err error
		if i.cert, err = x509.ParseCertificate(i.Certificate); err != nil {
			return fmt.Errorf("row %q: the certificate of issuer %s: %w", bookRow, i.ID, err)
		}
		i.authority, i.pem = authorityOf(i.cert), pemOf(i.Certificate)
	}
	for _, i := range b.Issuers {
		i.chain = b.chainOf(i)
	}
	return nil
}

// chainOf is an issuer and those above it. Of several that signed it, those that do
// so themselves are taken first, so that a chain ends as soon as it can.
func (b *book) chainOf(of *issuer) []*issuer {
	chain := []*issuer{of}
	if len(of.Manual) > 0 {
		for _, id := range of.Manual {
			if i := b.issuer(id); i != nil && i != of {
				chain = append(chain, i)
			}
		}
		return chain
	}
	for at := of; !selfSigned(at.cert); {
		var parent *issuer
		for _, i := range b.Issuers {
			if !slices.Contains(chain, i) && signed(i.cert, at.cert) && (parent == nil || selfSigned(i.cert) && !selfSigned(parent.cert)) {
				parent = i
			}
		}
		if parent == nil {
			break
		}
		chain, at = append(chain, parent), parent
	}
	return chain
}

func selfSigned(c *x509.Certificate) bool { return signed(c, c) }

// signed reports whether a certificate was signed by another.
func signed(by, c *x509.Certificate) bool {
	return bytes.Equal(by.RawSubject, c.RawIssuer) &&
		(len(c.AuthorityKeyId) == 0 || len(by.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, by.SubjectKeyId)) &&
		c.CheckSignatureFrom(by) == nil
}

// issuer returns an issuer by id, nil when there is none.
func (b *book) issuer(id string) *issuer {
	for _, i := range b.Issuers {
		if i.ID == id {
			return i
		}
	}
	return nil
}

func (b *book) key(id string) *keyEntry {
	for _, k := range b.Keys {
		if k.ID == id {
			return k
		}
	}
	return nil
}

// Reference to the issuer or key that is taken where none is named.
const byDefault = "default"

// find returns the issuer that a reference names: default, an id or a name.
func (b *book) find(ref string) (*issuer, error) {
	if ref == "" || ref == byDefault {
		if i := b.issuer(b.DefaultIssuer); i != nil {
			return i, nil
		}
		return nil, fault.New(fault.Invalid, "no default issuer currently configured: generate a root, import one, or name one in config/issuers")
	}
	for _, i := range b.Issuers {
		if i.ID == ref || i.Name == ref {
			return i, nil
		}
	}
	return nil, fault.New(fault.Invalid, "unable to find PKI issuer for reference: %s", shown(ref))
}

func (b *book) findKey(ref string) (*keyEntry, error) {
	if ref == "" || ref == byDefault {
		if k := b.key(b.DefaultKey); k != nil {
			return k, nil
		}
		return nil, fault.New(fault.Invalid, "no default key currently configured: generate one, import one, or name one in config/keys")
	}
	for _, k := range b.Keys {
		if k.ID == ref || k.Name == ref {
			return k, nil
		}
	}
	return nil, fault.New(fault.Invalid, "unable to find PKI key for reference: %s", shown(ref))
}

// keyOf returns the entry of a public key, nil where it is not here.
func (b *book) keyOf(public crypto.PublicKey) *keyEntry {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil
	}
	for _, k := range b.Keys {
		if bytes.Equal(k.Public, der) {
			return k
		}
	}
	return nil
}

// addKey adds a key, or returns the entry that it has already.
func (b *book) addKey(t storage.Txn, name string, s crypto.Signer) (k *keyEntry, existed bool, err error) {
	if k = b.keyOf(s.Public()); k != nil {
		return k, true, nil
	}
	kind, err := key.Of(s.Public())
	if err != nil {
		return nil, false, err
	}
	if len(b.Keys) >= maxKeys {
		return nil, false, fault.New(fault.Invalid, "a mount has at most %d keys; delete one, or mount another engine", maxKeys)
	}
	if err := b.freeKeyName(name, ""); err != nil {
		return nil, false, err
	}
	public, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		return nil, false, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(s)
	if err != nil {
		return nil, false, err
	}
	k = &keyEntry{ID: uuid.NewString(), Name: name, Type: kind.Type, Bits: kind.Bits, Public: public}
	b.Keys = append(b.Keys, k)
	if b.DefaultKey == "" {
		b.DefaultKey = k.ID
	}
	for _, i := range b.Issuers {
		if i.Key == "" && bytes.Equal(i.cert.RawSubjectPublicKeyInfo, public) {
			i.Key = k.ID
		}
	}
	return k, false, storage.Save(t, keyRows+k.ID, secretKey{PKCS8: private})
}

// addIssuer adds an issuer, or returns the one that has the certificate already.
func (b *book) addIssuer(t engine.Txn, name string, c *x509.Certificate) (i *issuer, existed bool, err error) {
	for _, i := range b.Issuers {
		if bytes.Equal(i.Certificate, c.Raw) {
			return i, true, nil
		}
	}
	if len(b.Issuers) >= maxIssuers {
		return nil, false, fault.New(fault.Invalid, "a mount has at most %d issuers; delete one, or mount another engine", maxIssuers)
	}
	if err := b.freeIssuerName(name, ""); err != nil {
		return nil, false, err
	}
	i = &issuer{ID: uuid.NewString(), Name: name, Certificate: c.Raw, Behavior: behaviorErr, Usage: allUsages, cert: c, pem: pemOf(c.Raw), authority: authorityOf(c)}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCRLSign == 0 {
		i.Usage = []string{usageRead, usageIssue, usageOCSP}
	}
	if k := b.keyOf(c.PublicKey); k != nil {
		i.Key = k.ID
	}
	b.Issuers = append(b.Issuers, i)
	if i.Key != "" && (b.DefaultIssuer == "" || b.FollowLatest) {
		b.DefaultIssuer = i.ID
	}
	return i, false, t.Schedule(listsTask, time.Now().Add(soon))
}

var refName = regexp.MustCompile(`^\w(?:[\w.-]{0,126}\w)?$`)

func checkRefName(what, name string) error {
	if name == byDefault {
		return fault.New(fault.Invalid, "reserved keyword 'default' can not be used as %s", what)
	}
	if name != "" && !refName.MatchString(name) {
		return fault.New(fault.Invalid, "%s contains invalid characters: it has letters, digits, dots, dashes and underscores", what)
	}
	return nil
}

func (b *book) freeIssuerName(name, but string) error {
	if err := checkRefName("issuer name", name); err != nil || name == "" {
		return err
	}
	for _, i := range b.Issuers {
		if i.ID != but && (i.Name == name || i.ID == name) {
			return fault.New(fault.Invalid, "issuer name already in use")
		}
	}
	return nil
}

func (b *book) freeKeyName(name, but string) error {
	if err := checkRefName("key name", name); err != nil || name == "" {
		return err
	}
	for _, k := range b.Keys {
		if k.ID != but && (k.Name == name || k.ID == name) {
			return fault.New(fault.Invalid, "key name already in use")
		}
	}
	return nil
}

// lately returns the book as it was at most a second ago.
func (e *Engine) lately(ctx context.Context) (*book, error) {
	raw, err := e.env.Recent(ctx, bookRow)
	if errors.Is(err, storage.ErrNotFound) {
		return &book{}, nil
	}
	if err != nil {
		return nil, err
	}
	if b := e.last.Load(); b != nil && bytes.Equal(b.raw, raw) {
		return b, nil
	}
	b, err := readBook(bytes.Clone(raw))
	if err == nil {
		e.last.Store(b)
	}
	return b, err
}

// book returns the book as it is now.
func (e *Engine) book(ctx context.Context) (b *book, err error) {
	err = e.env.Storage.View(ctx, func(r storage.Reader) error {
		b, err = loadBook(r)
		return err
	})
	return b, err
}

func loadBook(r storage.Reader) (*book, error) {
	raw, err := r.Get(bookRow)
	if errors.Is(err, storage.ErrNotFound) {
		return &book{}, nil
	}
	if err != nil {
		return nil, err
	}
	return readBook(raw)
}

// change changes the book, and rows with it. The function may run again.
func (e *Engine) change(ctx context.Context, fn func(t engine.Txn, b *book) error) error {
	_, err := e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		b, err := loadBook(t)
		if err != nil {
			return err
		}
		if err := fn(t, b); err != nil {
			return err
		}
		return b.save(t)
	})
	return err
}

func (b *book) save(t storage.Txn) error {
	text, err := json.Marshal(b.bookText)
	if err != nil {
		return err
	}
	if len(text) > maxBook {
		return fault.New(fault.Invalid, "the issuers of a mount have at most %d bytes together; delete one, or mount another engine", maxBook)
	}
	return t.Put(bookRow, text)
}

// shown is text of a request as it is fit to be repeated.
func shown(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// addresses are where an issuer's certificate, its list of revoked ones, and its OCSP
// responder are found.
type addresses struct {
	Issuing   wire.Strings `json:"issuing_certificates"`
	CRL       wire.Strings `json:"crl_distribution_points"`
	OCSP      wire.Strings `json:"ocsp_servers"`
	Templates bool         `json:"enable_templating"`
}
