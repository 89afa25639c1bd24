package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

// tables counts what there is in the public schema of a database.
func tables(t *testing.T, url string) (n int) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// database returns the one that a URL of postgrestest names.
func database(t testing.TB, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// as returns a URL with another user.
func as(t *testing.T, text, user string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, postgrestest.Password)
	return u.String()
}

// TestRefusals: what cannot be used is refused with a message that names it,
// shows no password, and nothing has been written.
func TestRefusals(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	password := strings.ReplaceAll(postgrestest.Password, "'", "''")
	server.Exec(t, "postgres", "CREATE ROLE guest LOGIN PASSWORD '"+password+"'", "CREATE ROLE reader LOGIN PASSWORD '"+password+"'")
	tests := []struct {
		name string
		want []string
		make func(t *testing.T) (url, look string)
	}{
		{"no right to make tables", []string{`user "guest" lacks a right`, "GRANT CREATE ON SCHEMA"}, func(t *testing.T) (string, string) {
			u := server.Database(t)
			return as(t, u, "guest"), u
		}},
		{"no right to write", []string{`user "reader" lacks a right`, "coffer_head", "GRANT SELECT, INSERT"}, func(t *testing.T) (string, string) {
			u := server.Database(t)
			e, err := open(context.Background(), Options{URL: u, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			server.Exec(t, database(t, u), "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
			return as(t, u, "reader"), u
		}},
		{"another's table", []string{"coffer_head is there, and is not Coffer's", "setting table"}, func(t *testing.T) (string, string) {
			u := server.Database(t)
			server.Exec(t, database(t, u), "CREATE TABLE coffer_head (name text)")
			return u, u
		}},
		{"another's other table", []string{"is not Coffer's", "setting table"}, func(t *testing.T) (string, string) {
			u := server.Database(t)
			server.Exec(t, database(t, u), "CREATE TABLE coffer_commits (name text)")
			return u, u
		}},
		{"a newer format", []string{"format 9", "from format 8 on", "run the newer Coffer"}, func(t *testing.T) (string, string) {
			u := server.Database(t)
			e, err := open(context.Background(), Options{URL: u, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			server.Exec(t, database(t, u), "UPDATE coffer_head SET format = 9, readable_by = 8")
			return u, u
		}},
		{"no such database", []string{"nowhere"}, func(t *testing.T) (string, string) { return server.URL("nowhere"), "" }},
		{"no such user", []string{`user "nobody"`}, func(t *testing.T) (string, string) { return as(t, server.URL("postgres"), "nobody"), "" }},
		{"no server", []string{"127.0.0.1:1", "cannot be reached"}, func(t *testing.T) (string, string) { return server.URLAt("127.0.0.1:1", "x"), "" }},
		{"a URL cut short", []string{"connection_url"}, func(t *testing.T) (string, string) {
			return "postgres://coffer:" + postgrestest.Password + "%zz@host/x", ""
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url, look := tt.make(t)
			before := 0
			if look != "" {
				before = tables(t, look)
			}
			var log bytes.Buffer
			_, err := open(context.Background(), Options{URL: url, RequestTimeout: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err == nil {
				t.Fatal("it was opened")
			}
			t.Log(err)
			if unavailable := strings.HasPrefix(tt.name, "no s"); errors.Is(err, storage.ErrUnavailable) != unavailable {
				t.Errorf("unavailable is %v, want %v", !unavailable, unavailable)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			for _, secret := range []string{postgrestest.Password, "pass%3Aword", "of%25tests"} {
				if strings.Contains(err.Error()+log.String(), secret) {
					t.Errorf("the password is in: %v %s", err, log.String())
				}
			}
			if look != "" && tables(t, look) != before {
				t.Error("something was written")
			}
		})
	}
}

// TestForgetfulServers: a server that would lose what it acknowledged is
// refused, or told not to.
func TestForgetfulServers(t *testing.T) {
	t.Parallel()
	lazy := postgrestest.Start(t, "synchronous_commit=off")
	e := node(t, Options{URL: lazy.Database(t)}).(*Engine)
	var setting string
	if err := e.pool.QueryRow(context.Background(), "SHOW synchronous_commit").Scan(&setting); err != nil || setting != "on" {
		t.Errorf("synchronous_commit is %q, %v", setting, err)
	}
	if _, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", nil) }); err != nil {
		t.Fatal(err)
	}
	careless := postgrestest.Start(t, "fsync=off")
	url := careless.Database(t)
	if _, err := open(context.Background(), Options{URL: url, Logger: quiet}); err == nil || !strings.Contains(err.Error(), "fsync is off") {
		t.Errorf("fsync is off: %v", err)
	}
	if n := tables(t, url); n != 0 {
		t.Errorf("%d tables", n)
	}
}

func TestOldServer(t *testing.T) {
	for version, want := range map[string]string{"120017": "12.17", "90603": "9.603", "130000": "", "150019": "", "": "", "unknown": ""} {
		err := checkVersion(version)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// TestTogether: nodes that start at the same time on an empty database make one
// store.
func TestTogether(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	const starts = 8
	for round := range storagetest.Rounds(5) {
		url := server.Database(t)
		var wg sync.WaitGroup
		for id := range starts {
			wg.Go(func() {
				e, err := open(context.Background(), Options{URL: url, MaxParallel: 2, Logger: quiet})
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
		e := node(t, Options{URL: url})
		err := e.View(context.Background(), func(r storage.Reader) error {
			names, err := r.List("node/", "", 100)
			if len(names) != starts || r.Revision() != starts {
				t.Errorf("round %d: %d rows, revision %d", round, len(names), r.Revision())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("starts at the same time: %d times %d nodes", storagetest.Rounds(5), starts)
}

// TestFullDisk: a full disk refuses writes by name, leaves reads alone, and
// writes go on when there is space.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	server := postgrestest.StartSmall(t, 40<<20)
	url := server.Database(t)
	e := node(t, Options{URL: url, HistorySize: 1 << 20})
	ballast := []string{"CREATE TABLE ballast AS SELECT repeat('x', 100) AS text FROM generate_series(1, 60000)"}
	value300k := make([]byte, 300<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(value300k) // does not shrink, and never fails
	put := func(key string) error {
		_, err := e.Update(context.Background(), func(tx storage.Txn) error {
			return errors.Join(tx.Put(key, value300k), tx.Put("last", []byte(key)))
		})
		return err
	}
	server.Exec(t, database(t, url), ballast...)
	written := 0
	var err error
	for ; err == nil && written < 1000; written++ {
		err = put(fmt.Sprintf("k%d", written))
	}
	written--
	if !errors.Is(err, storage.ErrFull) {
		t.Fatalf("after %d writes: %v", written, err)
	}
	refused := 1
	for range 5 {
		if err := put("more"); errors.Is(err, storage.ErrFull) {
			refused++
		}
	}
	err = e.View(context.Background(), func(r storage.Reader) error {
		last, err := storagetest.Value(r, "last")
		if last != fmt.Sprintf("k%d", written-1) {
			t.Errorf("the last write is %s, acknowledged was k%d", last, written-1)
		}
		names, err2 := r.List("k", "", 10_000)
		if len(names) != written {
			t.Errorf("%d rows after %d writes", len(names), written)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Error(err)
	}
	server.Exec(t, database(t, url), "DROP TABLE ballast")
	storagetest.Eventually(t, func() error { return put("after") })
	t.Logf("full disks: 1, written before: %d, refused: %d", written, refused)
}

func TestSettings(t *testing.T) {
	none := func(string) string { return "" }
	good := map[string]string{"connection_url": "postgres://u:p@h/d"}
	with := func(pairs ...string) map[string]string {
		m := map[string]string{"connection_url": good["connection_url"]}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	bad := []struct {
		settings map[string]string
		want     string
	}{
		{map[string]string{}, "connection_url"},
		{with("connection_url", "postgres://u:hunter2%zz@h/d"), "connection_url"},
		{with("connection_url", "host=h password=hunter2 sslmode=bogus"), "connection_url"},
		{with("tabel", "x"), "tabel"},
		{with("table", "x; DROP TABLE y"), "table"},
		{with("table", "a.b.c"), "table"},
		{with("table", "Coffer"), "table"},
		{with("max_parallel", "0"), "max_parallel"},
		{with("max_parallel", "many"), "max_parallel"},
		{with("max_parallel", "4", "max_idle_connections", "5"), "max_idle_connections"},
		{with("request_timeout", "soon"), "request_timeout"},
		{with("request_timeout", "1ms"), "request_timeout"},
		{with("history", "-1h"), "history"},
		{with("history_size", "1"), "history_size"},
		{with("ha_enabled", "true"), "ha_enabled"},
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
	o, err := parse(with("table", "s.t", "max_parallel", "7", "max_idle_connections", "3", "request_timeout", "9",
		"history", "10m", "history_size", "2MiB"), none)
	want := Options{URL: good["connection_url"], Table: "s.t", MaxParallel: 7, MaxIdle: 3, RequestTimeout: 9 * time.Second,
		History: 10 * time.Minute, HistorySize: 2 << 20}
	if err != nil || fmt.Sprint(o.URL, o.Table, o.MaxParallel, o.MaxIdle, o.RequestTimeout, o.History, o.HistorySize) !=
		fmt.Sprint(want.URL, want.Table, want.MaxParallel, want.MaxIdle, want.RequestTimeout, want.History, want.HistorySize) {
		t.Errorf("%+v, %v", o, err)
	}
	env := map[string]string{"VAULT_PG_CONNECTION_URL": "postgres://v@h/d"}
	for _, want := range []string{"postgres://v@h/d", "postgres://c@h/d"} {
		if o, err := parse(good, func(name string) string { return env[name] }); err != nil || o.URL != want {
			t.Errorf("from the environment: %q, %v", o.URL, err)
		}
		env["COFFER_PG_CONNECTION_URL"] = "postgres://c@h/d"
	}
}

// TestOpenWay: a way to a server on another machine that proves nothing is warned of.
func TestOpenWay(t *testing.T) {
	for url, warned := range map[string]bool{
		"postgres://u@192.0.2.1/d":                                    true, // sslmode=prefer
		"postgres://u@192.0.2.1/d?sslmode=disable":                    true,
		"postgres://u@192.0.2.1/d?sslmode=require":                    true,
		"postgres://u@192.0.2.1/d?sslmode=verify-full":                false,
		"postgres://u@127.0.0.1,192.0.2.1/d?sslmode=disable":          true,
		"postgres://u@192.0.2.1,192.0.2.2:5433/d?sslmode=verify-full": false,
		"postgres://u@127.0.0.1:1/d":                                  false,
		"postgres://u@localhost:1/d?sslmode=disable":                  false,
		"host=/nowhere user=u dbname=d":                               false,
	} {
		var log bytes.Buffer
		_, err := open(context.Background(), Options{URL: url, RequestTimeout: 100 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err == nil || strings.Contains(log.String(), "sslmode=verify-full") != warned {
			t.Errorf("%s: %v, the operator was told %q", url, err, log.String())
		}
	}
}
