// Package etcdtest runs private etcd clusters for tests: members are processes
// that can be killed, either the embedded server in the test's own program or the
// one that Debian installs. It is not for production.
package etcdtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// Cluster is an etcd cluster on loopback.
type Cluster struct {
	CAFile, CertFile, KeyFile string // with TLS: the authority, and a client's certificate

	dir      string
	members  []*Member
	user     string // root's name when authentication is on
	password string
}

// Member is one of a cluster's servers.
type Member struct {
	c      *Cluster
	dir    string
	s      settings
	debian bool
	cmd    *exec.Cmd
	exited chan struct{}
}

// Option changes a cluster.
type Option func(c *Cluster, s *settings)

// WithQuota bounds the size of each member's data, in bytes.
func WithQuota(bytes int64) Option { return func(_ *Cluster, s *settings) { s.Quota = bytes } }

// WithTLS has the members serve TLS; with clientCerts they want a certificate.
func WithTLS(clientCerts bool) Option {
	return func(c *Cluster, s *settings) {
		s.CA, s.Cert, s.Key, s.ClientCerts = c.CAFile, c.CertFile, c.KeyFile, clientCerts
		s.Client = strings.Replace(s.Client, "http:", "https:", 1)
	}
}

// Start starts n members, empty, that end with the test.
func Start(t testing.TB, n int, options ...Option) *Cluster {
	t.Helper()
	return begin(t, n, false, options)
}

// Debian starts one member from the installed program.
func Debian(t testing.TB) *Cluster {
	t.Helper()
	return begin(t, 1, true, nil)
}

func begin(t testing.TB, n int, debian bool, options []Option) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "coffer-etcd")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{dir: dir}
	t.Cleanup(func() { c.end(t) })
	if err := c.certificates(); err != nil {
		t.Fatal(err)
	}
	var initial []string
	for i := range n {
		m := &Member{c: c, dir: filepath.Join(dir, fmt.Sprint(i)), debian: debian}
		m.s = settings{
			Name: fmt.Sprintf("m%d", i), Dir: filepath.Join(m.dir, "data"),
			Client: "http://" + address(storagetest.FreePort(t)), Peer: "http://" + address(storagetest.FreePort(t)),
			HeartbeatMS: 100, ElectionMS: 1000,
		}
		initial = append(initial, m.s.Name+"="+m.s.Peer)
		if err := os.Mkdir(m.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		m.s.Initial = strings.Join(initial, ",")
		for _, o := range options {
			o(c, &m.s)
		}
		m.Start(t)
	}
	for _, m := range c.members {
		m.WaitReady(t)
	}
	return c
}

// Endpoints are the client URLs of all members.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.URL())
	}
	return urls
}

// Members are the cluster's servers.
func (c *Cluster) Members() []*Member { return c.members }

var paths atomic.Int64

// Path is a path in etcd that nothing else uses.
func (c *Cluster) Path() string { return fmt.Sprintf("t%d/", paths.Add(1)) }

// Client returns a client of all members, root's when there is authentication. It
// is closed when the test ends.
func (c *Cluster) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	client, err := c.client(c.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (c *Cluster) client(endpoints []string) (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		Username: c.user, Password: c.password,
	}
	if strings.HasPrefix(endpoints[0], "https:") {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		authority, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		config.TLS = &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
		config.TLS.RootCAs.AppendCertsFromPEM(authority)
	}
	return clientv3.New(config)
}

// EnableAuth switches authentication on. user may read and write below prefix.
func (c *Cluster) EnableAuth(t testing.TB, user, password, prefix string) {
	t.Helper()
	client := c.Client(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	steps := []func() error{
		func() error { _, err := client.RoleAdd(ctx, "root"); return err },
		func() error { _, err := client.UserAdd(ctx, "root", "root's password"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.RoleAdd(ctx, "coffer"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "coffer", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := client.UserAdd(ctx, user, password); return err },
		func() error { _, err := client.UserGrantRole(ctx, user, "coffer"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	c.user, c.password = "root", "root's password"
}

// Leader waits for a leader and returns it.
func (c *Cluster) Leader(t testing.TB) *Member {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, m := range c.members {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			client, err := c.client([]string{m.URL()})
			if err != nil {
				cancel()
				continue
			}
			st, err := client.Status(ctx, m.URL())
			cancel()
			_ = client.Close()
			if err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
				return m
			}
		}
	}
	t.Fatal("no leader within 30 s")
	return nil
}

func (c *Cluster) end(t testing.TB) {
	for _, m := range c.members {
		if m.cmd != nil {
			m.Continue()
			m.Kill(t)
		}
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(m.dir, "log")) // what there is
			lines := strings.Split(string(text), "\n")
			t.Logf("the end of what %s said:\n%s", m.s.Name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		t.Error(err)
	}
}

// URL is where clients reach the member.
func (m *Member) URL() string { return m.s.Client }

// Address is the host and port of URL.
func (m *Member) Address() string { return m.s.Client[strings.Index(m.s.Client, "//")+2:] }

// Start runs the member, again on what it has kept, and does not wait for it.
func (m *Member) Start(t testing.TB) {
	t.Helper()
	cmd, err := m.s.embedded()
	if m.debian {
		cmd, err = m.s.installed()
	}
	if err == nil {
		err = start(cmd, m.dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.cmd, m.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) { _ = cmd.Wait(); close(exited) }(m.exited)
}

// WaitReady waits until the member answers with a quorum behind it.
func (m *Member) WaitReady(t testing.TB) {
	t.Helper()
	if err := m.ready(); err != nil {
		text, _ := os.ReadFile(filepath.Join(m.dir, "log")) // what there is
		t.Fatalf("%s does not answer: %v\n%s", m.s.Name, err, text)
	}
}

func (m *Member) ready() error {
	client, err := m.c.client([]string{m.URL()})
	if err != nil {
		return err
	}
	defer client.Close()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := client.Get(ctx, "ready")
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-m.exited:
			return errors.New("it ended")
		default:
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// Kill kills the member with SIGKILL.
func (m *Member) Kill(t testing.TB) {
	t.Helper()
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.exited
}

// Stop and Continue send SIGSTOP and SIGCONT.
func (m *Member) Stop() { _ = m.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue undoes Stop.
func (m *Member) Continue() { _ = m.cmd.Process.Signal(syscall.SIGCONT) }

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
