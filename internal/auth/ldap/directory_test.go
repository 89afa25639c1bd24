package ldap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	ldap "github.com/go-ldap/ldap/v3"

	"github.com/cofferhq/coffer/internal/auth/ldap/ldaptest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// listen runs a server that does with each connection what it is told.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "ldap://" + l.Addr().String()
}

func read(conn net.Conn) bool {
	_, err := conn.Read(make([]byte, 4096))
	return err == nil
}

// bound is the answer to the first request, a bind: it worked.
const bound = "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"

// A directory that is down, slow, or talks nonsense is away, in the time that a login
// may take; nothing is said about the password.
func TestUnwellServers(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	silent := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	for name, address := range map[string]string{
		"down":   "ldap://" + down.Addr().String(),
		"silent": listen(t, silent),
		"closes": listen(t, func(net.Conn) {}),
		"resets": listen(t, func(conn net.Conn) {
			read(conn)
			_ = conn.(*net.TCPConn).SetLinger(0)
		}),
		"garbage": listen(t, func(conn net.Conn) {
			_, _ = conn.Write(bytes.Repeat([]byte("HTTP/1.1 400 no\r\n"), 1000))
			silent(conn)
		}),
		"endless": listen(t, func(conn net.Conn) {
			for chunk := bytes.Repeat([]byte{0x30, 0x80}, 1<<15); ; {
				if _, err := conn.Write(chunk); err != nil {
					return
				}
			}
		}),
		"claims much": listen(t, func(conn net.Conn) { _, _ = conn.Write([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff}); silent(conn) }),
		"sends much": listen(t, func(conn net.Conn) {
			_, _ = conn.Write([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x04, 0x84, 0x7f, 0xff, 0xff, 0x00})
			for chunk := make([]byte, 1<<20); ; {
				if _, err := conn.Write(chunk); err != nil {
					return
				}
			}
		}),
		"silent after the bind": listen(t, func(conn net.Conn) {
			if read(conn) {
				_, _ = conn.Write([]byte(bound))
			}
			silent(conn)
		}),
		"closes after the bind": listen(t, func(conn net.Conn) {
			if read(conn) {
				_, _ = conn.Write([]byte(bound))
				read(conn)
			}
		}),
		"drips": listen(t, func(conn net.Conn) {
			for _, b := range []byte(bound) {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(500 * time.Millisecond)
			}
		}),
	} {
		for way, change := range map[string]fields{"": {}, " tls": {"url": strings.Replace(address, "ldap:", "ldaps:", 1)}, " starttls": {"starttls": "true"}} {
			t.Run(name+way, func(t *testing.T) {
				t.Parallel()
				s := newBench(t)
				s.configure(fields{
					"url": address, "binddn": ldaptest.BindDN, "bindpass": ldaptest.BindPassword, "userdn": ldaptest.People,
					"request_timeout": "1s", "connection_timeout": "1s",
				})
				s.configure(change)
				begun := time.Now()
				_, err := s.login("ada", ldaptest.Password)
				if !fault.Is(err, fault.Unavailable) || strings.Contains(fault.From(err).Message, "127.0.0.1") {
					t.Errorf("login: %v", err)
				}
				if took := time.Since(begun); took > 4*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

// A server that cannot be reached is passed over; a request that was given up ends.
func TestFailover(t *testing.T) {
	d, s := ldaptest.New(t), newBench(t)
	f := searching(d)
	f["url"] = "ldap://127.0.0.1:1,ldaps://127.0.0.1:2," + d.URL
	s.configure(f)
	s.accepted("ada", ldaptest.Password)
	s.refused("ada", "wrong", fault.Invalid, refusal)
	f["url"] = listen(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	s.configure(f)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	a := s.DoContext(ctx, route.Caller{}, "POST", "login/ada", fields{"password": "x"}.json())
	if a.Err == nil || time.Since(begun) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), a.Err)
	}
}

// What is wrong with the settings is no wrong password.
func TestWrongSettings(t *testing.T) {
	d := ldaptest.New(t)
	for _, change := range []fields{
		{"bindpass": "wrong"}, {"binddn": "cn=nobody,dc=example,dc=com"}, {"userdn": "ou=nowhere,dc=example,dc=com"}, {"groupdn": "ou=nowhere,dc=example,dc=com"},
		{"userdn": "dc=elsewhere"},
	} {
		s := newBench(t)
		s.configure(searching(d))
		s.configure(change)
		s.refused("ada", ldaptest.Password, fault.Unavailable, "cannot be asked")
	}
	s := newBench(t)
	s.configure(fields{"url": d.URL})
	s.refused("ada", ldaptest.Password, fault.Invalid, "cannot derive UserBindDN")
}

func TestNumberOfGroups(t *testing.T) {
	d, s := ldaptest.New(t), newBench(t)
	f := searching(d)
	f["groupfilter"] = "(&(objectClass=groupOfNames)(cn=many*))"
	s.configure(f)
	add := func(from, to int) {
		d.As(t, func(c *ldap.Conn) error {
			for i := from; i < to; i++ {
				r := ldap.NewAddRequest(fmt.Sprintf("cn=many%d,%s", i, ldaptest.Groups), nil)
				r.Attribute("objectClass", []string{"groupOfNames"})
				r.Attribute("member", []string{ldaptest.People})
				if err := c.Add(r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	add(0, 501) // slapd names 500 at once
	s.refused("ada", ldaptest.Password, fault.Invalid, "more groups than")
	s.configure(fields{"groupfilter": "(cn=many1*)", "max_page_size": "7"})
	if got := s.accepted("ada", ldaptest.Password); len(got.Groups) != 111 {
		t.Errorf("%d groups", len(got.Groups))
	}
	entries := make([]*ldap.Entry, maxGroups+1)
	for i := range entries {
		entries[i] = ldap.NewEntry(fmt.Sprintf("cn=g%d,dc=x", i), nil)
	}
	if got, err := names(entries[:maxGroups], "cn"); err != nil || len(got) != maxGroups || got[1] != "g1" {
		t.Errorf("%d %v", len(got), err)
	}
	if _, err := names(entries, "cn"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestBoundOfAnswers(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		defer there.Close()
		_, _ = there.Write(make([]byte, 20))
	}()
	b := &bounded{here, 10}
	got, err := io.ReadAll(b)
	if len(got) != 10 || !errors.Is(err, errTooMuch) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
