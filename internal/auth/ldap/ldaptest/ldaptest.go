// Package ldaptest runs, for tests, a real OpenLDAP server with a few people and
// groups, over TCP, TLS and StartTLS. It is no fake: a missing slapd fails the test.
package ldaptest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ldap "github.com/go-ldap/ldap/v3"

	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// What the directory has from the start. Each person's password is Password.
const (
	Suffix       = "dc=example,dc=com"
	People       = "ou=people," + Suffix
	Groups       = "ou=groups," + Suffix
	BindDN       = "cn=coffer," + Suffix
	BindPassword = "the bind user's password"
	Password     = "correct horse battery staple"
	rootDN       = "cn=root," + Suffix
)

// entries: Ada is in operators and readers, Bob in readers; twin is the uid of two.
const entries = `dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: cn=coffer,dc=example,dc=com
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: coffer
userPassword: the bind user's password

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=com
objectClass: organizationalUnit
ou: groups
` + groups

const groups = `
dn: cn=Operators,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: Operators
member: uid=ada,ou=people,dc=example,dc=com

dn: cn=readers,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: readers
member: uid=ada,ou=people,dc=example,dc=com
member: uid=bob,ou=people,dc=example,dc=com
`

// uids are the people's names; some are made of what filters and DNs must escape.
var uids = []string{"ada", "bob", "twin", "*", "smith, john", "a)(uid=*", "#1", `back\slash`, "zoë", "plus+quote\""}

// Directory is a running server.
type Directory struct {
	URL, TLSURL string
	CA          string // PEM of the authority of its certificate

	dir     string
	process *exec.Cmd
	printed bytes.Buffer
}

// New starts a server. It ends with the test.
func New(t testing.TB) *Directory {
	t.Helper()
	d := &Directory{dir: t.TempDir()}
	d.CA = d.certify(t)
	ldif := entries
	for _, uid := range uids {
		ldif += person("uid="+ldap.EscapeDN(uid)+","+People, uid)
	}
	ldif += person("cn=second,"+People, "twin")
	d.write(t, "entries.ldif", ldif)
	d.write(t, "slapd.conf", `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile `+d.dir+`/pid
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile `+d.dir+`/cert.pem
TLSCertificateFile `+d.dir+`/cert.pem
TLSCertificateKeyFile `+d.dir+`/key.pem
access to attrs=userPassword by anonymous auth by * none
access to * by * read
database mdb
suffix "`+Suffix+`"
rootdn "`+rootDN+`"
rootpw "`+BindPassword+`"
directory `+d.dir+`/db
`)
	if err := os.Mkdir(filepath.Join(d.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	add := exec.Command("/usr/sbin/slapadd", "-q", "-f", filepath.Join(d.dir, "slapd.conf"), "-l", filepath.Join(d.dir, "entries.ldif"))
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("slapadd (scripts/test-deps installs it): %v\n%s", err, out)
	}
	plain, encrypted := storagetest.FreePort(t), storagetest.FreePort(t)
	d.URL, d.TLSURL = fmt.Sprintf("ldap://127.0.0.1:%d", plain), fmt.Sprintf("ldaps://127.0.0.1:%d", encrypted)
	d.start(t)
	t.Cleanup(d.Stop)
	return d
}

func person(dn, uid string) string {
	return fmt.Sprintf("\ndn: %s\nobjectClass: inetOrgPerson\ncn: %s\nsn: of %s\nuid: %s\nuserPassword: %s\n", dn, strings.ToUpper(uid), uid, uid, Password)
}

func (d *Directory) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certify makes the server's certificate, which is its own authority.
func (d *Directory) certify(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "slapd"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	d.write(t, "cert.pem", cert)
	d.write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return cert
}

// start runs the server in the foreground, and waits until it answers.
func (d *Directory) start(t testing.TB) {
	t.Helper()
	d.process = exec.Command("/usr/sbin/slapd", "-d", "0", "-f", filepath.Join(d.dir, "slapd.conf"), "-h", d.URL+" "+d.TLSURL)
	d.process.Stdout, d.process.Stderr = &d.printed, &d.printed
	if err := d.process.Start(); err != nil {
		t.Fatalf("slapd (scripts/test-deps installs it): %v", err)
	}
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := ldap.DialURL(d.URL)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(until) {
			d.Stop()
			t.Fatalf("slapd does not answer: %v\n%s", err, d.printed.String())
		}
	}
}

// Stop ends the server. It may be called again.
func (d *Directory) Stop() {
	if d.process == nil {
		return
	}
	_ = d.process.Process.Kill()
	_ = d.process.Wait()
	d.process = nil
}

// As is a connection with every right.
func (d *Directory) As(t testing.TB, fn func(c *ldap.Conn) error) {
	t.Helper()
	c, err := ldap.DialURL(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Bind(rootDN, BindPassword); err != nil {
		t.Fatal(err)
	}
	if err := fn(c); err != nil {
		t.Fatal(err)
	}
}

// Remove removes an entry.
func (d *Directory) Remove(t testing.TB, dn string) {
	t.Helper()
	d.As(t, func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
}

// Join puts a user into a group.
func (d *Directory) Join(t testing.TB, user, group string) {
	t.Helper()
	r := ldap.NewModifyRequest("cn="+group+","+Groups, nil)
	r.Add("member", []string{"uid=" + user + "," + People})
	d.As(t, func(c *ldap.Conn) error { return c.Modify(r) })
}
