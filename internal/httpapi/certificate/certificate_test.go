package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, dir string, names ...string) *Authority {
	t.Helper()
	a, err := Open(dir, names, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca)
	return pool
}

// serve accepts TLS connections and greets each.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = c.Write([]byte("hello"))
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// dial makes a handshake, reads the greeting and returns the server's serial.
func dial(address string, config *tls.Config) (string, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, config)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		return "", err
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

func TestAuthorityIsMadeOnceAndTrusted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	a := open(t, dir, "coffer.example.test", "192.0.2.7")
	for name, mode := range map[string]os.FileMode{caFile: 0o644, caKeyFile: 0o600, serverFile: 0o644, serverKeyFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, info, err, mode)
		}
	}
	address := serve(t, Config(&tls.Config{}, a, tls.NoClientCert))
	_, port, _ := net.SplitHostPort(address)
	for _, name := range []string{"localhost", "127.0.0.1", "coffer.example.test", "192.0.2.7"} {
		if _, err := dial(net.JoinHostPort("127.0.0.1", port), &tls.Config{RootCAs: a.pool(), ServerName: name}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if _, err := dial(address, &tls.Config{RootCAs: a.pool(), ServerName: "elsewhere.example.test"}); err == nil {
		t.Error("trusted for a foreign name")
	}
	again := open(t, dir, "coffer.example.test", "192.0.2.7")
	if !again.ca.Equal(a.ca) || again.current.Load().Leaf.SerialNumber.Cmp(a.current.Load().Leaf.SerialNumber) != 0 {
		t.Error("a second start made new certificates")
	}
	more := open(t, dir, "new.example.test")
	if !more.ca.Equal(a.ca) || more.current.Load().Leaf.VerifyHostname("new.example.test") != nil {
		t.Error("a new name did not lead to a new certificate under the same authority")
	}
}

func TestAuthorityRenewsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a := open(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		go a.Renew(ctx)
		first := a.Expiry()
		time.Sleep(serverLife - renewBefore - 2*time.Hour)
		if a.Expiry() != first {
			t.Error("renewed too early")
		}
		time.Sleep(4 * time.Hour)
		if !a.Expiry().After(first) {
			t.Error("not renewed")
		}
		time.Sleep(serverLife)
		if left := time.Until(a.Expiry()); left < renewBefore-2*renewEvery {
			t.Errorf("%v are left", left)
		}
		cancel()
		synctest.Wait()
		time.Sleep(2 * serverLife) // stopped meanwhile: the next start renews
		if b := open(t, dir); time.Until(b.Expiry()) < renewBefore {
			t.Error("not renewed at start")
		}
		time.Sleep(authorityLife)
		if _, err := Open(dir, nil, quiet); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("an expired authority: %v", err)
		}
	})
}

func TestDamagedAuthorityIsRefusedAndExplained(t *testing.T) {
	damage := func(name string, do func(path string) error) error {
		dir := t.TempDir()
		open(t, dir)
		if err := do(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, nil, quiet)
		return err
	}
	garbage := func(path string) error { return os.WriteFile(path, []byte("garbage"), 0o600) }
	for name, err := range map[string]error{
		"CA gone bad":  damage(caFile, garbage),
		"key gone bad": damage(caKeyFile, garbage),
		"key gone":     damage(caKeyFile, os.Remove),
	} {
		if err == nil || !strings.Contains(err.Error(), "restore") || !strings.Contains(err.Error(), "move") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"server certificate gone bad":           damage(serverFile, garbage),
		"server key gone":                       damage(serverKeyFile, os.Remove),
		"first start interrupted after the key": damage(caFile, os.Remove),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// pairIn copies an authority's server certificate to files, key first as tools do.
func pairIn(t *testing.T, dir string, from *Authority) Files {
	t.Helper()
	files := Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for to, name := range map[string]string{files.Key: serverKeyFile, files.Cert: serverFile} {
		content, err := os.ReadFile(from.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := write(to, 0o600, content); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestReloadUnderLoadFailsNoHandshake(t *testing.T) {
	dir := t.TempDir()
	authorities := []*Authority{open(t, t.TempDir()), open(t, t.TempDir())}
	pool := authorities[0].pool()
	pool.AddCert(authorities[1].ca)
	pair, err := Load(pairIn(t, dir, authorities[0]), quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	background.Go(func() { pair.Watch(ctx) })
	address := serve(t, Config(&tls.Config{}, pair, tls.NoClientCert))
	var handshakes atomic.Int64
	seen := sync.Map{}
	for range 4 {
		background.Go(func() {
			for ctx.Err() == nil {
				serial, err := dial(address, &tls.Config{RootCAs: pool, ServerName: "localhost"})
				if err != nil {
					t.Errorf("a handshake failed: %v", err)
					return
				}
				handshakes.Add(1)
				seen.Store(serial, true)
			}
		})
	}
	for i := range 60 {
		pairIn(t, dir, authorities[i%2])
		if i%10 == 0 {
			_ = os.WriteFile(filepath.Join(dir, "key.pem"), []byte("half writ"), 0o600)
		}
		time.Sleep(10 * time.Millisecond)
		if _, err := pair.Reload(); err != nil && i%10 != 0 {
			t.Errorf("reload: %v", err)
		}
	}
	cancel()
	background.Wait()
	for _, a := range authorities {
		if _, ok := seen.Load(a.current.Load().Leaf.SerialNumber.String()); !ok {
			t.Error("one of the two certificates was never served")
		}
	}
	t.Logf("%d handshakes", handshakes.Load())
}

func TestWatchSeesChangesAndKeepsTheOldOnErrors(t *testing.T) {
	dir, a, b := t.TempDir(), open(t, t.TempDir()), open(t, t.TempDir())
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		files := pairIn(t, dir, a)
		pair, err := Load(files, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go pair.Watch(ctx)
		serial := func() string { return pair.current.Load().certificate.Leaf.SerialNumber.String() }
		old := serial()
		if err := os.WriteFile(files.Cert, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if serial() != old {
			t.Error("a broken pair was taken")
		}
		if err := os.Remove(files.Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		pairIn(t, dir, b)
		time.Sleep(2 * time.Second)
		if serial() == old {
			t.Error("the new pair was not taken")
		}
		cancel()
		synctest.Wait()
	})
	text := log.String()
	if strings.Count(text, "is refused") != 1 || strings.Count(text, "cannot be read") != 1 || strings.Count(text, "in use") != 1 {
		t.Errorf("each event is logged once:\n%s", text)
	}
	if strings.Contains(text, "PRIVATE") {
		t.Error("the log holds a key")
	}
}

func TestMutualTLS(t *testing.T) {
	dir, server, trusted, foreign := t.TempDir(), open(t, t.TempDir()), open(t, t.TempDir()), open(t, t.TempDir())
	files := pairIn(t, dir, server)
	files.ClientCA = filepath.Join(dir, "clients.pem")
	setCA := func(a *Authority) {
		content, err := os.ReadFile(a.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files.ClientCA, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	setCA(trusted)
	pair, err := Load(files, quiet)
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, Config(&tls.Config{}, pair, tls.RequireAndVerifyClientCert))
	// The authority's server certificates serve as client certificates here: the
	// key usage is what the server must look at, so make proper ones.
	client := func(a *Authority) *tls.Config {
		config := &tls.Config{RootCAs: server.pool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		if a != nil {
			config.Certificates = []tls.Certificate{clientCertificate(t, a)}
		}
		return config
	}
	kept := client(trusted)
	if _, err := dial(address, kept); err != nil {
		t.Errorf("the trusted client: %v", err)
	}
	if _, err := dial(address, client(foreign)); err == nil {
		t.Error("a foreign client was let in")
	}
	if _, err := dial(address, client(nil)); err == nil {
		t.Error("a client without certificate was let in")
	}
	if c := client(nil); true {
		c.Certificates = []tls.Certificate{*trusted.current.Load()}
		if _, err := dial(address, c); err == nil {
			t.Error("a server certificate was accepted as a client's")
		}
	}
	setCA(foreign)
	if _, err := pair.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(address, kept); err == nil {
		t.Error("a client of the withdrawn authority was let in")
	}
	if _, err := dial(address, client(foreign)); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}
}

func TestLoadExplainsBadFiles(t *testing.T) {
	dir := t.TempDir()
	files := pairIn(t, dir, open(t, t.TempDir()))
	other := pairIn(t, t.TempDir(), open(t, t.TempDir()))
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Files{
		{Cert: filepath.Join(dir, "none.pem"), Key: files.Key},
		{Cert: files.Cert, Key: other.Key},
		{Cert: files.Cert, Key: empty},
		{Cert: files.Cert, Key: files.Key, ClientCA: empty},
	} {
		if _, err := Load(bad, quiet); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := Load(Files{Cert: filepath.Join(dir, "none.pem")}, quiet); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is not ErrNotExist", err)
	}
}
