package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

const password = "hunter2: of tests"

// begun makes a store at a path and closes it.
func begun(t *testing.T, o Options) {
	t.Helper()
	o.Logger = quiet
	e, err := Open(context.Background(), o)
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// refusal opens a store that cannot be used, and wants an error that says so,
// shows no password, and a cluster in which nothing has been written.
func refusal(t *testing.T, c *etcdtest.Cluster, o Options, unavailable bool, want ...string) {
	t.Helper()
	var log bytes.Buffer
	o.RequestTimeout, o.Logger = testTimeout, slog.New(slog.NewTextHandler(&log, nil))
	before := revision(t, c)
	start := time.Now()
	e, err := Open(context.Background(), o)
	if err == nil {
		_ = e.Close()
		t.Error("it was opened")
		return
	}
	if took := time.Since(start); took > 4*testTimeout {
		t.Errorf("refused after %v", took)
	}
	t.Log(err)
	if errors.Is(err, storage.ErrUnavailable) != unavailable {
		t.Errorf("unavailable is %v, want %v", !unavailable, unavailable)
	}
	for _, want := range want {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error()+log.String(), "hunter2") {
		t.Errorf("the password is in: %v %s", err, log.String())
	}
	if after := revision(t, c); after != before {
		t.Errorf("etcd went from revision %d to %d", before, after)
	}
}

// revision is where etcd stands.
func revision(t *testing.T, c *etcdtest.Cluster) int64 {
	t.Helper()
	if c == nil {
		return 0
	}
	resp, err := c.Client(t).Get(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// TestRefusals: what cannot be used is refused.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	put := func(key, value string) {
		if _, err := c.Client(t).Put(context.Background(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	at := func(path string) Options { return Options{Endpoints: c.Endpoints(), Path: path} }
	t.Run("another's keys", func(t *testing.T) {
		put("foreign/some/key", "x")
		refusal(t, c, at("foreign"), false, `keys below "foreign/" that are not Coffer's`, "another path")
	})
	t.Run("a newer format", func(t *testing.T) {
		begun(t, at("newer"))
		put("newer/format", "7")
		refusal(t, c, at("newer"), false, `format "7"`, "run the newer Coffer")
	})
	t.Run("no server", func(t *testing.T) {
		refusal(t, nil, Options{Endpoints: []string{"http://127.0.0.1:1"}}, true, "127.0.0.1:1", "cannot be reached")
	})
	t.Run("a server without TLS", func(t *testing.T) {
		o := Options{Endpoints: []string{strings.Replace(c.Endpoints()[0], "http:", "https:", 1)}}
		refusal(t, c, o, true, "authentication handshake failed: EOF")
	})
}

// TestTLS: members and clients prove who they are.
func TestTLS(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1, etcdtest.WithTLS(true))
	good := Options{Endpoints: c.Endpoints(), Path: "t", CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile}
	e := node(t, good)
	if _, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", nil) }); err != nil {
		t.Error(err)
	}
	stranger, nobody, plain := good, good, good
	stranger.CAFile = ""
	nobody.CertFile, nobody.KeyFile = "", ""
	plain = Options{Endpoints: []string{"http://" + c.Members()[0].Address()}}
	t.Run("an unknown authority", func(t *testing.T) {
		refusal(t, c, stranger, false, "tls_ca_file", "unknown authority")
	})
	t.Run("no certificate of the client", func(t *testing.T) {
		refusal(t, c, nobody, true, "cannot be reached")
	})
	t.Run("without TLS", func(t *testing.T) {
		refusal(t, c, plain, true, "cannot be reached")
	})
}

// TestUsers: with etcd's authentication the store needs a user and a role.
func TestUsers(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	c.EnableAuth(t, "coffer", password, "mine/")
	o := Options{Endpoints: c.Endpoints(), Path: "mine", Username: "coffer", Password: password}
	e := node(t, o)
	for i := range 10 {
		if _, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put(fmt.Sprint("k", i), nil) }); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere, wrong, none := o, o, o
	elsewhere.Path = "other"
	wrong.Password = "wrong"
	none.Username, none.Password = "", ""
	t.Run("a path of others", func(t *testing.T) {
		refusal(t, c, elsewhere, false, `user "coffer" lacks a permission`, `readwrite "other/"`)
	})
	t.Run("a wrong password", func(t *testing.T) { refusal(t, c, wrong, false, `does not accept user "coffer"`) })
	t.Run("no user", func(t *testing.T) { refusal(t, c, none, false, "set username and password") })
	t.Run("a right to read alone", func(t *testing.T) {
		ctx, client := context.Background(), c.Client(t)
		_, err := client.RoleRevokePermission(ctx, "coffer", "mine/", clientv3.GetPrefixRangeEnd("mine/"))
		_, err2 := client.RoleGrantPermission(ctx, "coffer", "mine/", clientv3.GetPrefixRangeEnd("mine/"), clientv3.PermissionType(clientv3.PermRead))
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		refusal(t, c, o, false, `user "coffer" lacks a permission`, `readwrite "mine/"`)
		// A node that runs says it too, and goes on when it has the right again.
		put := func() error {
			_, err := e.Update(ctx, func(tx storage.Txn) error { return tx.Put("k", nil) })
			return err
		}
		if err := put(); err == nil || !strings.Contains(err.Error(), "lacks a permission") {
			t.Errorf("a write without the right: %v", err)
		}
		if _, err := client.RoleGrantPermission(ctx, "coffer", "mine/", clientv3.GetPrefixRangeEnd("mine/"), clientv3.PermissionType(clientv3.PermReadWrite)); err != nil {
			t.Fatal(err)
		}
		storagetest.Eventually(t, put)
	})
}

// TestNoQuorum: members without a quorum are away, and a node can be started
// when they are back.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 3)
	o := Options{Endpoints: c.Endpoints(), Path: "q"}
	begun(t, o)
	lost := c.Members()[:2]
	for _, m := range lost {
		m.Kill(t)
	}
	refusal(t, nil, o, true, "cannot be reached")
	for _, m := range lost {
		m.Start(t)
	}
	storagetest.Eventually(t, func() error {
		o := o
		o.Logger = quiet
		e, err := Open(context.Background(), o)
		if err == nil {
			err = e.Close()
		}
		return err
	})
}

// TestTogether: nodes that start at the same time on an empty path make one store.
func TestTogether(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	const starts = 8
	for round := range storagetest.Rounds(5) {
		o := Options{Endpoints: c.Endpoints(), Path: c.Path(), Logger: quiet}
		var wg sync.WaitGroup
		for id := range starts {
			wg.Go(func() {
				e, err := Open(context.Background(), o)
				if err != nil {
					t.Errorf("round %d, node %d: %v", round, id, err)
					return
				}
				_, err = e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put(fmt.Sprintf("node/%d", id), nil) })
				if err := errors.Join(err, e.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		err := node(t, o).View(context.Background(), func(r storage.Reader) error {
			names, err := r.List("node/", "", 100)
			if len(names) != starts {
				t.Errorf("round %d: %d rows", round, len(names))
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("starts at the same time: %d times %d nodes", storagetest.Rounds(5), starts)
}

func TestOldServer(t *testing.T) {
	for version, want := range map[string]string{"3.3.25": "3.3.25", "2.3.8": "2.3.8", "3.4.0": "", "3.6.4": "", "4.0.0": "", "": "", "unknown": ""} {
		err := checkVersion(version)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestSettings(t *testing.T) {
	none := func(string) string { return "" }
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := []struct {
		settings map[string]string
		want     string
	}{
		{map[string]string{"address": "ftp://h"}, "address"},
		{map[string]string{"address": "http://h/path"}, "address"},
		{map[string]string{"address": "http://a,https://b"}, "address"},
		{map[string]string{"address": "http://u:hunter2@h"}, "address"},
		{map[string]string{"address": ""}, "address"},
		{map[string]string{"path": "///"}, "path"},
		{map[string]string{"path": strings.Repeat("x", 257)}, "path"},
		{map[string]string{"username": "u"}, "password"},
		{map[string]string{"password": "hunter2"}, "username"},
		{map[string]string{"tls_ca_file": "/does/not/exist"}, "tls_ca_file"},
		{map[string]string{"address": "https://h", "tls_ca_file": empty}, "tls_ca_file"},
		{map[string]string{"address": "https://h", "tls_cert_file": empty}, "tls_cert_file"},
		{map[string]string{"address": "https://h", "tls_cert_file": empty, "tls_key_file": empty}, "tls_cert_file"},
		{map[string]string{"request_timeout": "soon"}, "request_timeout"},
		{map[string]string{"request_timeout": "1ms"}, "request_timeout"},
		{map[string]string{"ha_enabled": "true"}, "ha_enabled"},
		{map[string]string{"etcd_api": "v3"}, "etcd_api"},
		{map[string]string{"pth": "x"}, "pth"},
	}
	for _, tt := range bad {
		_, err := parse(tt.settings, none)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want+":") {
			t.Errorf("%v: %v", tt.settings, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in: %v", err)
		}
	}
	env := map[string]string{"ETCD_ADDR": "c:1", "ETCD_USERNAME": "eu", "ETCD_PASSWORD": "ep"}
	o, err := parse(map[string]string{"address": "a, b:7 ,http://c:8/", "path": strings.Repeat("x", 256), "username": "u", "password": "p", "request_timeout": "9"}, none)
	if err != nil || fmt.Sprint(o.Endpoints) != "[http://a:2379 http://b:7 http://c:8]" || o.Username != "u" || o.Password != "p" || o.RequestTimeout != 9*time.Second {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = parse(map[string]string{"address": "a", "username": "u", "password": "p"}, func(name string) string { return env[name] })
	if err != nil || fmt.Sprint(o.Endpoints) != "[http://c:1]" || o.Username != "eu" || o.Password != "ep" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestOpenWay: a way to a member on another machine without TLS is warned of.
func TestOpenWay(t *testing.T) {
	for url, warned := range map[string]bool{
		"http://192.0.2.1:2379": true, "https://192.0.2.1:2379": false, "http://127.0.0.1:1": false, "http://localhost:1": false, "http://[::1]:1": false,
	} {
		var log bytes.Buffer
		_, err := open(context.Background(), Options{Endpoints: []string{url}, RequestTimeout: 100 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err == nil || strings.Contains(log.String(), "https://") != warned {
			t.Errorf("%s: %v, the operator was told %q", url, err, log.String())
		}
	}
}
