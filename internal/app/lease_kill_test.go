package app_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

// lending is a server in a process of its own, and a PostgreSQL that it lends
// accounts of.
type lending struct {
	*process
	pg *postgrestest.Server
}

// creator makes an account in several steps, one of which takes a while.
const creator = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; SELECT pg_sleep(0.02); GRANT CREATE, USAGE ON SCHEMA public TO "{{name}}";`

func newLending(t *testing.T) lending {
	l := lending{newProcess(t, ""), postgrestest.Start(t)}
	l.pg.Exec(t, "postgres", `CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'keeper'`)
	l.start(t)
	l.initialize(t)
	l.Must(t, 204, "POST", "sys/mounts/database", `{"type":"database"}`)
	l.Must(t, 204, "POST", "database/config/orders", fmt.Sprintf(`{"plugin_name":"postgresql-database-plugin","allowed_roles":"*","username":"keeper","password":"keeper",
		"max_open_connections":8,"connection_url":"postgresql://{{username}}:{{password}}@127.0.0.1:%d/postgres?sslmode=disable"}`, l.pg.Port))
	l.role(t, "writer", "1h", "")
	return l
}

func (l lending) role(t *testing.T, name, ttl, revocation string) {
	t.Helper()
	l.Must(t, 204, "POST", "database/roles/"+name, fmt.Sprintf(`{"db_name":"orders","creation_statements":%q,"revocation_statements":%q,"default_ttl":%q}`, creator, revocation, ttl))
}

// lentAccount is an account that the server answered with.
type lentAccount struct {
	ID       string `json:"lease_id"`
	Data     struct{ Username, Password string }
	returned bool // it was asked to be taken back
	gone     bool // and that was answered
}

// accounts are those that there are.
func (l lending) accounts(t *testing.T) []string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), l.pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	rows, err := c.Query(t.Context(), "SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// figure is a metric of the server's.
func (l lending) figure(t *testing.T, name string) (v float64) {
	t.Helper()
	for line := range strings.Lines(string(l.Must(t, 200, "GET", "sys/metrics?format=prometheus", "").Body)) {
		if _, err := fmt.Sscanf(line, name+" %g", &v); err == nil {
			return v
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestKillWhileLending kills a server again and again while eight clients borrow
// accounts and give them back. No account that was answered with is lost before its
// end, none comes back after it, and when all leases have ended there is no account.
func TestKillWhileLending(t *testing.T) {
	t.Parallel()
	l := newLending(t)
	l.role(t, "brief", "1s", "")
	var mu sync.Mutex
	var all []*lentAccount
	kills, asked := 8*soak(), 0
	unanswered := 0
	for n := range kills {
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for i := 0; ; i++ {
					a, err := l.Try("GET", "database/creds/writer", l.Root, "")
					if err != nil || a.Status != 200 {
						return // no answer: whether there is one is not known
					}
					lent := &lentAccount{}
					decode(t, a.Body, lent)
					mu.Lock()
					all, asked = append(all, lent), asked+1
					lent.returned = i%4 != 0
					mu.Unlock()
					if !lent.returned { // and one that ends by itself meanwhile
						_, _ = l.Try("GET", "database/creds/brief", l.Root, "")
						continue
					}
					if a, err = l.Try("POST", "sys/leases/revoke", l.Root, fmt.Sprintf(`{"lease_id":%q,"sync":true}`, lent.ID)); err != nil || a.Status != 204 {
						return
					}
					mu.Lock()
					lent.gone, asked = true, asked+1
					mu.Unlock()
				}
			})
		}
		time.Sleep(200*time.Millisecond + rand.N(400*time.Millisecond))
		l.kill(t)
		clients.Wait()
		l.start(t)
		names := l.accounts(t)
		for _, a := range all {
			there := slices.Contains(names, a.Data.Username)
			switch {
			case a.gone && there:
				t.Errorf("%s was taken back, and is there", a.Data.Username)
			case !a.returned && !there:
				t.Errorf("%s was lent, and is not there", a.Data.Username)
			case !a.returned:
				l.Must(t, 200, "POST", "sys/leases/lookup", fmt.Sprintf(`{"lease_id":%q}`, a.ID))
			}
			if a.returned && !a.gone { // its end was under way: either is right, until it is asked again
				l.Must(t, 204, "POST", "sys/leases/revoke", fmt.Sprintf(`{"lease_id":%q,"sync":true}`, a.ID))
				a.gone = true
			}
		}
		known := map[string]bool{}
		for _, a := range all {
			known[a.Data.Username] = true
		}
		for _, name := range names {
			if !known[name] {
				unanswered++ // made for a request that got no answer
			}
		}
		if t.Failed() {
			t.Fatalf("after %d kills; the server said:\n%s", n+1, l.out)
		}
		if n < kills-1 {
			l.end(t)
			all = nil
		}
	}
	l.end(t)
	t.Logf("%d kills, %d answers, %d accounts of requests without an answer", kills, asked, unanswered)
}

// end ends all leases, and wants that no account is left, nor a lease that counts.
func (l lending) end(t *testing.T) {
	t.Helper()
	l.Must(t, 204, "POST", "sys/leases/revoke-prefix/database", `{"sync":true}`)
	var left []string
	eventually(t, "no account is left", func() bool { left = l.accounts(t); return len(left) == 0 })
	eventually(t, "no lease counts", func() bool { return l.figure(t, "coffer_leases") == 0 })
}

// TestDatabaseAwayWhenLeasesEnd: what ends while its database is away is taken back
// when it is there again.
func TestDatabaseAwayWhenLeasesEnd(t *testing.T) {
	t.Parallel()
	l := newLending(t)
	l.role(t, "short", "3s", "")
	const many = 20
	for range many {
		l.Must(t, 200, "GET", "database/creds/short", "")
	}
	l.pg.Kill(t)
	away := 8 * time.Second
	if soak() > 1 {
		away = time.Minute
	}
	time.Sleep(away)
	if n := l.figure(t, "coffer_leases"); n != many {
		t.Errorf("%v leases are left while their database is away, of %d", n, many)
	}
	if n := l.figure(t, "coffer_leases_failing"); n == 0 {
		t.Error("none of them is failing")
	}
	l.pg.Restart(t)
	back := time.Now()
	eventually(t, "every account is taken back", func() bool { return len(l.accounts(t)) == 0 })
	eventually(t, "no lease counts", func() bool { return l.figure(t, "coffer_leases") == 0 })
	if n := l.figure(t, "coffer_leases_failing") + l.figure(t, "coffer_leases_set_aside"); n != 0 {
		t.Errorf("%v leases are in trouble afterwards", n)
	}
	t.Logf("%d leases ended with their database away for %v; the last account went %v after it was back", many, away, time.Since(back).Round(100*time.Millisecond))
}

// TestOwnedObjects: an account that owns something cannot be dropped. The lease says
// so, and ends once the role's statements say what is to become of it.
func TestOwnedObjects(t *testing.T) {
	t.Parallel()
	l := newLending(t)
	var lent lentAccount
	decode(t, l.Must(t, 200, "GET", "database/creds/writer", "").Body, &lent)
	c, err := pgx.Connect(t.Context(), fmt.Sprintf("postgresql://%s:%s@127.0.0.1:%d/postgres?sslmode=disable", lent.Data.Username, lent.Data.Password, l.pg.Port))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "CREATE TABLE report (id int)"); err != nil {
		t.Fatal(err)
	}
	_ = c.Close(context.Background())

	// cli runs the command as a person does.
	cli := func(args ...string) (string, error) {
		cmd := coffer(args...)
		cmd.Env = append(cmd.Env, "COFFER_ADDR="+strings.TrimSuffix(l.URL(), "/v1"), "COFFER_CACERT="+l.ca(), "COFFER_TOKEN="+l.Root, "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	want := func(args []string, ok bool, says ...string) {
		t.Helper()
		out, err := cli(args...)
		if _, ended := err.(*exec.ExitError); ok != (err == nil) || err != nil && !ended {
			t.Errorf("coffer %q: %v\n%s", args, err, out)
		}
		for _, s := range says {
			if !strings.Contains(out, s) {
				t.Errorf("coffer %q says %q, not %q", args, out, s)
			}
		}
	}
	id := strings.TrimPrefix(lent.ID, "database/creds/writer/")
	want([]string{"lease", "list"}, true, "database/")
	want([]string{"lease", "list", "database/creds/writer"}, true, id)
	want([]string{"lease", "list", "-failing"}, true, "Everything that ended was taken back")
	want([]string{"lease", "revoke", "-sync", lent.ID}, false, "cannot be dropped because some objects depend on it", "owner of table report", "it is tried again")
	want([]string{"lease", "list", "-failing"}, true, lent.ID, "owner of table report")
	want([]string{"lease", "list", "-failing", "-format=json"}, true, `"lease_id": "`+lent.ID)
	if len(l.accounts(t)) != 1 || l.figure(t, "coffer_leases_failing") != 1 {
		t.Error("the account is not there, or its lease not failing")
	}
	l.role(t, "writer", "1h", `REASSIGN OWNED BY "{{name}}" TO keeper; DROP OWNED BY "{{name}}"; DROP ROLE "{{name}}";`)
	want([]string{"lease", "revoke", "-sync", lent.ID}, true, "Revoked lease")
	want([]string{"lease", "list", "-failing"}, true, "Everything that ended was taken back")
	if left := l.accounts(t); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
	l.pg.Exec(t, "postgres", "SELECT id FROM report") // it is the keeper's now
}
