package database_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/database"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

const createReader = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";`

// bench is an engine, and the PostgreSQL server that it lends accounts of.
type bench struct {
	*enginetest.Engine
	pg    *postgrestest.Server
	store storage.Engine
}

func (b bench) url() string {
	return fmt.Sprintf("postgresql://{{username}}:{{password}}@127.0.0.1:%d/postgres?sslmode=disable", b.pg.Port)
}

func (b bench) config(more string) string {
	return fmt.Sprintf(`{"plugin_name":"postgresql-database-plugin","connection_url":%q,"username":"keeper","password":"first pass/word","allowed_roles":"*"%s}`, b.url(), more)
}

// open starts a server with an administrator of its own, and an engine on it.
func open(t *testing.T) bench {
	t.Helper()
	b := bench{pg: postgrestest.Start(t), store: memory.New()}
	b.pg.Exec(t, "postgres", `CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'first pass/word'`)
	b.pg.Exec(t, "postgres", `CREATE TABLE orders (id int)`)
	b.pg.Exec(t, "postgres", `INSERT INTO orders VALUES (1), (2)`)
	b.Engine = enginetest.Open(t, database.Kind.Spec(), enginetest.Options{Storage: b.store, Mount: engine.Mount{Path: "database/"}})
	stop := b.Run(t)
	t.Cleanup(stop)
	b.Work(t)
	return b
}

// ready is open with a connection and a role.
func ready(t *testing.T) bench {
	b := open(t)
	b.Must(t, 204, "POST", "config/orders", b.config(`,"verify_connection":true`))
	b.Must(t, 204, "POST", "roles/reader", fmt.Sprintf(`{"db_name":"orders","creation_statements":%q,"default_ttl":"1h","max_ttl":"2h"}`, createReader))
	return b
}

type account struct {
	Username, Password string
	lease              *route.Lease
}

func (b bench) lend(t *testing.T, role string) account {
	t.Helper()
	a := b.Must(t, 200, "GET", "creds/"+role, "")
	out := a.Output.(database.Creds)
	return account{out.Username, out.Password.Reveal(), a.Notes.Lease}
}

// login connects as an account.
func (b bench) login(a account) (*pgx.Conn, error) {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(a.Username, a.Password), Host: fmt.Sprintf("127.0.0.1:%d", b.pg.Port), Path: "postgres", RawQuery: "sslmode=disable"}
	return pgx.Connect(context.Background(), u.String())
}

// roles are the accounts that Coffer made.
func (b bench) roles(t *testing.T) (names []string) {
	t.Helper()
	c, err := b.login(account{Username: postgrestest.User, Password: postgrestest.Password})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	rows, err := c.Query(t.Context(), "SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func until(t *testing.T, what string, bound time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s did not happen in %v", what, bound)
}

func TestLend(t *testing.T) {
	b := ready(t)
	a := b.lend(t, "reader")
	if !strings.HasPrefix(a.Username, "v-root-reader-") || len(a.Username) > 63 || len(a.Password) != 20 || a.lease.TTL.Round(time.Second) != time.Hour || !a.lease.Renewable {
		t.Errorf("lent: %s, lease %+v", a.Username, a.lease)
	}
	c, err := b.login(a)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM orders").Scan(&n); err != nil || n != 2 {
		t.Errorf("as the account: %d, %v", n, err)
	}
	if _, err := c.Exec(t.Context(), "INSERT INTO orders VALUES (3)"); err == nil {
		t.Error("the account may do what its role does not say")
	}
	before := validUntil(t, c)
	out, err := b.Leases().Renew(t.Context(), a.lease.Key, 90*time.Minute)
	if err != nil || out.Lease.Left().Round(time.Minute) != 90*time.Minute {
		t.Fatalf("%+v, %v", out, err)
	}
	if after := validUntil(t, c); after.Sub(before).Round(time.Minute) != 30*time.Minute {
		t.Errorf("renewed from %v to %v", before, after)
	}
	if err := b.Leases().Revoke(t.Context(), a.lease.Key, true); err != nil {
		t.Fatal(err)
	}
	if left := b.roles(t); len(left) != 0 {
		t.Errorf("after the end there are %q", left)
	}
	if err := c.QueryRow(t.Context(), "SELECT 1").Scan(&n); err == nil {
		t.Error("a session of an account that ended goes on")
	}
	if _, err := b.login(a); err == nil {
		t.Error("an account that ended logs in")
	}
}

func validUntil(t *testing.T, c *pgx.Conn) (at time.Time) {
	t.Helper()
	if err := c.QueryRow(t.Context(), "SELECT rolvaliduntil FROM pg_roles WHERE rolname = current_user").Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestEndsInTime(t *testing.T) {
	b := ready(t)
	b.Must(t, 204, "POST", "roles/reader", `{"default_ttl":"2s"}`)
	for range 3 {
		b.lend(t, "reader")
	}
	if n := len(b.roles(t)); n != 3 {
		t.Fatalf("there are %d accounts", n)
	}
	until(t, "the end", 10*time.Second, func() bool { return len(b.roles(t)) == 0 })
}

// TestOwnedObjects: what PostgreSQL does not drop is set aside with its words, and
// ends when the role's statements are mended.
func TestOwnedObjects(t *testing.T) {
	b := ready(t)
	b.pg.Exec(t, "postgres", `GRANT CREATE ON SCHEMA public TO PUBLIC`)
	a := b.lend(t, "reader")
	c, err := b.login(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "CREATE TABLE mine (id int)"); err != nil {
		t.Fatal(err)
	}
	_ = c.Close(t.Context())
	err = b.Leases().Revoke(t.Context(), a.lease.Key, true)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cannot be dropped because some objects depend on it (SQLSTATE 2BP01): owner of table mine") {
		t.Fatalf("%v", err)
	}
	trouble, err := b.Leases().Troubled(t.Context(), "", 10)
	if err != nil || len(trouble) != 1 || !strings.Contains(trouble[0].Ending.Error, "owner of table mine") {
		t.Errorf("%+v, %v", trouble, err)
	}
	b.Must(t, 204, "POST", "roles/reader", `{"revocation_statements":["REASSIGN OWNED BY \"{{name}}\" TO keeper","DROP OWNED BY \"{{name}}\"","DROP ROLE \"{{name}}\""]}`)
	if err := b.Leases().Revoke(t.Context(), a.lease.Key, true); err != nil {
		t.Error(err)
	}
	if left := b.roles(t); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
	b.Must(t, 204, "POST", "roles/reader", `{"revocation_statements":["ALTER ROLE \"{{name}}\" NOLOGIN"]}`)
	a = b.lend(t, "reader")
	if err := b.Leases().Revoke(t.Context(), a.lease.Key, true); err == nil || !strings.Contains(err.Error(), "is still there") {
		t.Errorf("statements that drop nothing: %v", err)
	}
}

// TestAway: a server that is away when leases end is waited for.
func TestAway(t *testing.T) {
	b := ready(t)
	b.Must(t, 204, "POST", "roles/reader", `{"default_ttl":"2s"}`)
	b.lend(t, "reader")
	b.pg.Kill(t)
	began := time.Now()
	a := b.Do("GET", "creds/reader", "")
	if took := time.Since(began); !fault.Is(a.Err, fault.Unavailable) || took > 10*time.Second {
		t.Errorf("with the server away: %v after %v", a.Err, took)
	}
	until(t, "a failing try", 20*time.Second, func() bool {
		trouble, _ := b.Leases().Troubled(t.Context(), "", 10)
		return len(trouble) > 0 && trouble[0].Ending.Away > 0
	})
	b.pg.Restart(t)
	until(t, "the end", 40*time.Second, func() bool { return len(b.roles(t)) == 0 })
}

func TestMakingFails(t *testing.T) {
	b := ready(t)
	b.Must(t, 204, "POST", "roles/broken", `{"db_name":"orders","creation_statements":"CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'; GRANT nothing TO \"{{name}}\""}`)
	a := b.Do("GET", "creds/broken", "")
	if !fault.Is(a.Err, fault.Invalid) || !strings.Contains(fault.From(a.Err).Message, `role "nothing" does not exist`) {
		t.Errorf("%v", a.Err)
	}
	if left := b.roles(t); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
	if trouble, _ := b.Leases().Troubled(t.Context(), "", 10); len(trouble) != 0 {
		t.Errorf("%+v", trouble[0].Ending)
	}
}

func TestRefusals(t *testing.T) {
	b := ready(t)
	for what, c := range map[string]struct{ method, path, body, says string }{
		"wrong password":     {"POST", "config/x", strings.Replace(b.config(""), "first pass/word", "wrong", 1), "password authentication failed"},
		"nobody there":       {"POST", "config/x", `{"plugin_name":"postgresql-database-plugin","connection_url":"postgresql://u:secret-p@127.0.0.1:1/x?sslmode=disable"}`, "cannot be reached"},
		"no such host":       {"POST", "config/x", `{"plugin_name":"postgresql-database-plugin","connection_url":"postgresql://u:secret-p@nosuch.invalid/x"}`, "cannot be reached"},
		"not a URL":          {"POST", "config/x", `{"plugin_name":"postgresql-database-plugin","connection_url":"postgresql://u:secret-p@[::1/x"}`, "connection_url"},
		"no URL":             {"POST", "config/x", `{"plugin_name":"postgresql-database-plugin"}`, "connection_url cannot be empty"},
		"no plugin":          {"POST", "config/x", `{}`, "empty plugin name"},
		"another plugin":     {"POST", "config/x", `{"plugin_name":"oracle-database-plugin"}`, "no database plugin"},
		"connections":        {"POST", "config/x", b.config(`,"max_open_connections":1001`), "max_open_connections"},
		"template":           {"POST", "config/x", b.config(`,"username_template":"{{.Nothing}}"`), "username_template"},
		"same name":          {"POST", "config/x", b.config(`,"username_template":"{{.RoleName}}"`), "same name twice"},
		"long name":          {"POST", "config/x", b.config(`,"username_template":"{{random 64}}"`), "64 bytes"},
		"SQL in a name":      {"POST", "config/x", b.config(`,"username_template":"\"; DROP ROLE keeper; --{{random 8}}"`), "other characters"},
		"endless template":   {"POST", "config/x", b.config(`,"username_template":"{{range 1000000000}}{{end}}{{random 8}}"`), "range"},
		"no db":              {"POST", "roles/x", `{"creation_statements":"CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'"}`, "database name is required"},
		"no statements":      {"POST", "roles/x", `{"db_name":"orders"}`, "creation_statements are needed"},
		"no name":            {"POST", "roles/x", `{"db_name":"orders","creation_statements":"CREATE ROLE x PASSWORD '{{password}}'"}`, "hold no {{name}}"},
		"no password":        {"POST", "roles/x", `{"db_name":"orders","creation_statements":"CREATE ROLE \"{{name}}\""}`, "hold no {{password}}"},
		"unquoted":           {"POST", "roles/x", `{"db_name":"orders","creation_statements":"CREATE ROLE {{name}} PASSWORD '{{password}}'"}`, "must stand in quotes"},
		"open quote":         {"POST", "roles/x", `{"db_name":"orders","creation_statements":"CREATE ROLE \"{{name}}\" PASSWORD '{{password}}"}`, "quote without an end"},
		"unknown value":      {"POST", "roles/x", `{"db_name":"orders","creation_statements":"CREATE ROLE \"{{name}}\" PASSWORD '{{password}}' {{other}}"}`, "{{other}}"},
		"times":              {"POST", "roles/x", fmt.Sprintf(`{"db_name":"orders","creation_statements":%q,"default_ttl":"2h","max_ttl":"1h"}`, createReader), "default_ttl cannot be greater"},
		"credential":         {"POST", "roles/x", fmt.Sprintf(`{"db_name":"orders","creation_statements":%q,"credential_type":"magic"}`, createReader), "credential_type"},
		"slash":              {"POST", "roles/a/b", `{}`, "unsupported path"},
		"no role":            {"GET", "creds/none", "", "unknown role: none"},
		"static, no account": {"POST", "static-roles/x", `{"db_name":"orders","username":"nobody-there","rotation_period":"1h"}`, "does not exist"},
		"static, no period":  {"POST", "static-roles/x", `{"db_name":"orders","username":"reports"}`, "rotation_schedule or rotation_period"},
		"static, short":      {"POST", "static-roles/x", `{"db_name":"orders","username":"reports","rotation_period":"4s"}`, "5 seconds or more"},
		"static, both":       {"POST", "static-roles/x", `{"db_name":"orders","username":"reports","rotation_period":"1h","rotation_schedule":"0 3 * * *"}`, "mutually exclusive"},
		"static, schedule":   {"POST", "static-roles/x", `{"db_name":"orders","username":"reports","rotation_schedule":"sometimes"}`, "cron"},
		"static, never":      {"POST", "static-roles/x", `{"db_name":"orders","username":"reports","rotation_schedule":"0 0 31 2 *"}`, "never comes"},
		"static, window":     {"POST", "static-roles/x", `{"db_name":"orders","username":"reports","rotation_schedule":"0 3 * * *","rotation_window":"59m"}`, "rotation_window"},
		"static, role there": {"POST", "static-roles/reader", `{"db_name":"orders","username":"reports","rotation_period":"1h"}`, "must be unique"},
		"rotate nothing":     {"POST", "rotate-role/none", "{}", ""},
		"static creds":       {"GET", "static-creds/none", "", "unknown role"},
	} {
		began := time.Now()
		a := b.Do(c.method, c.path, c.body)
		if a.Err == nil || !strings.Contains(fault.From(a.Err).Message, c.says) {
			t.Errorf("%s: %v", what, a.Err)
			continue
		}
		if kind := fault.From(a.Err).Kind; kind == fault.Internal {
			t.Errorf("%s: it is our fault: %v", what, a.Err)
		}
		if strings.Contains(a.Err.Error(), "secret-p") || strings.Contains(a.Err.Error(), "first pass") {
			t.Errorf("%s: a password is told: %v", what, a.Err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: it took %v", what, took)
		}
	}
	b.Must(t, 404, "GET", "config/x", "")
	b.Must(t, 404, "GET", "roles/x", "")
	b.Must(t, 404, "GET", "static-roles/x", "")
	b.Must(t, 204, "POST", "config/orders", `{"allowed_roles":["writer-*"],"verify_connection":true}`)
	if a := b.Do("GET", "creds/reader", ""); a.Err == nil || !strings.Contains(a.Err.Error(), "not an allowed role") {
		t.Errorf("a role that is not allowed: %v", a.Err)
	}
}

func TestReadsHoldNoPassword(t *testing.T) {
	b := ready(t)
	b.Must(t, 200, "POST", "config/plain", fmt.Sprintf(`{"plugin_name":"postgresql-database-plugin","connection_url":"postgresql://keeper:first%%20pass%%2Fword@127.0.0.1:%d/postgres?sslmode=disable","allowed_roles":"*"}`, b.pg.Port))
	b.Must(t, 200, "POST", "config/listed", fmt.Sprintf(`{"plugin_name":"postgresql-database-plugin","connection_url":"host=127.0.0.1 port=%d user=keeper password='first pass/word' dbname=postgres sslmode=disable","allowed_roles":"x"}`, b.pg.Port))
	for _, name := range []string{"orders", "plain", "listed"} {
		a := b.Must(t, 200, "GET", "config/"+name, "")
		if strings.Contains(a.Data, "first") || !strings.Contains(a.Data, "127.0.0.1") {
			t.Errorf("config/%s: %s", name, a.Data)
		}
	}
	if got := b.Must(t, 200, "LIST", "config", ""); !strings.Contains(got.Data, `["listed","orders","plain"]`) {
		t.Errorf("%s", got.Data)
	}
	if a := b.Do("POST", "rotate-root/plain", "{}"); !fault.Is(a.Err, fault.Invalid) {
		t.Errorf("a password that stands in the URL: %v", a.Err)
	}
	b.Must(t, 204, "DELETE", "config/plain", "")
	b.Must(t, 404, "GET", "config/plain", "")
}

func TestRotateRoot(t *testing.T) {
	b := ready(t)
	b.lend(t, "reader")
	b.Must(t, 204, "POST", "rotate-root/orders", "{}")
	if _, err := b.login(account{Username: "keeper", Password: "first pass/word"}); err == nil {
		t.Error("the first password still works")
	}
	b.lend(t, "reader")
	if got := b.Must(t, 200, "GET", "config/orders", ""); !strings.Contains(got.Data, "last_root_rotation") {
		t.Errorf("%s", got.Data)
	}
	// Another node finds the new password.
	other := enginetest.Open(t, database.Kind.Spec(), enginetest.Options{Storage: b.store, Mount: engine.Mount{Path: "database/"}})
	t.Cleanup(other.Run(t))
	other.Must(t, 200, "GET", "creds/reader", "")
	b.Must(t, 204, "POST", "reset/orders", "{}")
}

// TestStatic takes an account over, and changes its password.
func TestStatic(t *testing.T) {
	b := ready(t)
	b.pg.Exec(t, "postgres", `CREATE ROLE reports LOGIN PASSWORD 'old'`)
	b.Must(t, 204, "POST", "static-roles/reports", `{"db_name":"orders","username":"reports","rotation_period":"5s"}`)
	read := func() account {
		out := b.Must(t, 200, "GET", "static-creds/reports", "").Output.(database.StaticCreds)
		if out.TTL > 5 || out.TTL < 0 || out.Username != "reports" {
			t.Errorf("%+v", out)
		}
		return account{Username: out.Username, Password: out.Password.Reveal()}
	}
	works := func(a account) bool {
		c, err := b.login(a)
		if err == nil {
			_ = c.Close(t.Context())
		}
		return err == nil
	}
	first := read()
	if !works(first) || works(account{Username: "reports", Password: "old"}) {
		t.Error("the account was not taken over")
	}
	b.Must(t, 204, "POST", "rotate-role/reports", "{}")
	second := read()
	if first.Password == second.Password || !works(second) {
		t.Error("the password was not changed")
	}
	until(t, "a change by the clock", 15*time.Second, func() bool { return read().Password != second.Password })
	if third := read(); !works(third) || works(second) {
		t.Error("the password that the clock changed does not work")
	}
	if got := b.Must(t, 200, "GET", "static-roles/reports", ""); strings.Contains(got.Data, read().Password) || !strings.Contains(got.Data, `"rotation_period":5`) {
		t.Errorf("%s", got.Data)
	}
	b.Must(t, 204, "DELETE", "static-roles/reports", "")
	b.Must(t, 404, "GET", "static-roles/reports", "")
	if err := b.store.View(t.Context(), func(r storage.Reader) error {
		rows, err := r.Scan("core/jobs/kind/mounts/job/", "", 10)
		if len(rows) != 0 {
			t.Errorf("a task is left: %q", rows[0].Key)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// fallible is a store whose writes fail from a moment on.
type fallible struct {
	storage.Engine
	left *int // writes until they fail; below 0 they do not
}

func (f fallible) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	if *f.left == 0 {
		return 0, storage.ErrUnavailable
	}
	*f.left--
	return f.Engine.Update(ctx, fn)
}

// TestRotationIsInterrupted: whatever is not written any more, the password that the
// database has is found.
func TestRotationIsInterrupted(t *testing.T) {
	for _, path := range []string{"rotate-root/orders", "rotate-role/reports"} {
		for writes := range 3 {
			t.Run(fmt.Sprint(path, writes), func(t *testing.T) {
				b := ready(t)
				b.pg.Exec(t, "postgres", `CREATE ROLE reports LOGIN PASSWORD 'old'`)
				b.Must(t, 204, "POST", "static-roles/reports", `{"db_name":"orders","username":"reports","rotation_period":"1h"}`)
				left := -1
				dying := enginetest.Open(t, database.Kind.Spec(), enginetest.Options{Storage: fallible{b.store, &left}, Mount: engine.Mount{Path: "database/"}})
				t.Cleanup(dying.Run(t))
				dying.Must(t, 200, "GET", "creds/reader", "")
				left = writes
				if a := dying.Do("POST", path, "{}"); (a.Err == nil) != (writes == 2) {
					t.Fatalf("with %d writes: %v", writes, a.Err)
				}
				next := enginetest.Open(t, database.Kind.Spec(), enginetest.Options{Storage: b.store, Mount: engine.Mount{Path: "database/"}})
				t.Cleanup(next.Run(t))
				next.Must(t, 200, "GET", "creds/reader", "")
				next.Must(t, 204, "POST", path, "{}")
				out := next.Must(t, 200, "GET", "static-creds/reports", "").Output.(database.StaticCreds)
				c, err := b.login(account{Username: out.Username, Password: out.Password.Reveal()})
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close(t.Context())
			})
		}
	}
}

// TestManyAtOnce: no two readers share an account.
func TestManyAtOnce(t *testing.T) {
	b := ready(t)
	names := make(chan string, 40)
	for range cap(names) {
		go func() {
			a := b.Do("GET", "creds/reader", "")
			if a.Err != nil {
				names <- a.Err.Error()
				return
			}
			names <- a.Output.(database.Creds).Username
		}()
	}
	var all []string
	for range cap(names) {
		all = append(all, <-names)
	}
	slices.Sort(all)
	if got := b.roles(t); !slices.Equal(got, all) {
		t.Errorf("lent were %q, there are %q", all, got)
	}
	if _, err := b.Leases().RevokeBelow(t.Context(), b.Mount.UUID, lease.How{Now: true}); err != nil {
		t.Error(err)
	}
	if left := b.roles(t); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
}
