package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
	"github.com/cofferhq/coffer/internal/token"
	"github.com/cofferhq/coffer/internal/wire"
)

// jar keeps texts by path. Its mount is versioned: data/PATH is spelled PATH.
type jar struct{ env engine.Env }

type jarPath struct {
	Path string      `path:"path"`
	Text wire.Secret `json:"text"`
}

type jarText struct {
	route.Notes
	Text wire.Secret `json:"text"`
}

func (j *jar) read(ctx context.Context, _ route.Caller, in jarPath) (jarText, error) {
	var out jarText
	v, err := j.env.Recent(ctx, "t/"+in.Path)
	if errors.Is(err, storage.ErrNotFound) {
		return out, route.Missing()
	}
	if err != nil {
		return out, err
	}
	out.Text = wire.Secret(v)
	out.Subject = route.Subject{Path: in.Path, Version: 1, Fingerprint: j.env.Fingerprint([]byte(out.Text.Reveal()))}
	return out, nil
}

func (j *jar) write(ctx context.Context, _ route.Caller, in jarPath) (route.Empty, error) {
	if trouble := map[string]error{"full": storage.ErrFull, "away": storage.ErrUnavailable, "torn": storage.ErrUncertain}[in.Text.Reveal()]; trouble != nil {
		return route.Empty{}, fmt.Errorf("commit: %w", trouble)
	}
	if in.Text == "fail" {
		return route.Empty{}, fmt.Errorf("broken inside: %s", "cause-text")
	}
	_, err := j.env.Storage.Update(ctx, func(t storage.Txn) error { return t.Put("t/"+in.Path, []byte(in.Text.Reveal())) })
	return route.Empty{}, err
}

func (j *jar) exists(ctx context.Context, in jarPath) (bool, error) {
	_, err := j.read(ctx, route.Caller{}, in)
	return err == nil, nil
}

func (j *jar) can(_ context.Context, by route.Caller, in jarPath) (jarText, error) {
	text := fmt.Sprint(by.Can(policy.Read, in.Path), by.Can(policy.Update, in.Path))
	return jarText{Text: wire.Secret(text)}, nil
}

func (j *jar) login(_ context.Context, _ route.Caller, in jarPath) (auth.Login, error) {
	if in.Text != "open sesame" {
		return auth.Login{}, fault.New(fault.Invalid, "invalid username or password")
	}
	l := auth.Login{Alias: in.Path, DisplayName: "door-" + in.Path, Policies: []string{"reader"}}
	l.BoundCIDRs = wire.Strings{"10.0.0.0/8"}
	return l, nil
}

var jarKind = engine.Kind[struct{}, *jar]{
	Name: "jar", Class: engine.Secret, Doc: "Keeps texts.",
	Open: func(_ context.Context, env engine.Env, _ struct{}) (*jar, error) { return &jar{env}, nil },
	Routes: []route.Route[*jar]{
		route.New("GET", "data/{path...}", "Read a text.", (*jar).read, route.Spelled("{path...}", 0)),
		route.New("POST", "data/{path...}", "Write a text.", (*jar).write, route.Spelled("{path...}", 0), route.ExistsBy((*jar).exists)),
		route.New("GET", "can/{path...}", "Say whether the caller may read and update a wire path.", (*jar).can),
		route.New("GET", "sudo/{path...}", "Read a text with sudo.", (*jar).read, route.Sudo()),
	},
}

var doorKind = engine.Kind[struct{}, *jar]{
	Name: "door", Class: engine.Auth, Doc: "Lets in.",
	Open: jarKind.Open,
	Routes: []route.Route[*jar]{
		route.New("POST", "login/{path}", "Log in.", (*jar).login, route.Public()),
	},
}

type fixture struct {
	*Gateway
	dir    string
	root   string
	tokens *token.Store
	engine *storagetest.Away
	realms *realm.Table
	n      int
	mu     sync.Mutex
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	away := storagetest.NewAway(memory.New())
	b := barrier.New(away, log)
	key, err := barrier.NewRootKey()
	must(t, err)
	must(t, b.Initialize(ctx, key))
	must(t, b.Open(ctx, key))
	specs := map[string]*engine.Spec{"jar": jarKind.Spec(), "door": doorKind.Spec()}
	cache := barrier.NewCache(b, "core/tokens/"+token.Prefix, 100, token.Decode)
	follow(t, b.Follow)
	tokens, err := token.NewStore(ctx, token.Options{
		Storage: storage.Sub(b, "core/tokens/"), Cache: cache, CachePrefix: "core/tokens/",
		Defaults: func() (time.Duration, time.Duration) { return time.Hour, 24 * time.Hour },
	})
	must(t, err)
	realms, err := realm.Open(ctx, realm.Options{
		Barrier: b, Log: log, Tokens: tokens, MaxPayload: 1 << 20,
		Kinds: func(name, _ string) *engine.Spec { return specs[name] },
	})
	must(t, err)
	t.Cleanup(realms.Close)
	mounts, policies := realms.Root().Mounts, realms.Root().Policies
	secret, _, err := tokens.Create(ctx, nil, token.Request{Policies: []string{"root"}, Initial: true, DisplayName: "root"})
	must(t, err)
	f := &fixture{dir: t.TempDir(), root: secret.Reveal(), tokens: tokens, engine: away, realms: realms}
	logFile, err := audit.Open(f.dir, audit.Options{Origin: "test"})
	must(t, err)
	t.Cleanup(func() { _ = logFile.Close() })
	f.Gateway = New(Options{Audit: logFile, Log: log, SysTable: route.NewTable(nil)})
	f.Open(&Services{Realms: realms, Tokens: tokens})
	for path, class := range map[string]engine.Class{"secret": engine.Secret, "auth/door": engine.Auth} {
		_, err := mounts.Enable(ctx, mount.Request{Path: path, Type: map[engine.Class]string{engine.Secret: "jar", engine.Auth: "door"}[class], Class: class})
		must(t, err)
	}
	_, err = policies.Put(ctx, "reader", `path "secret/app/*" { capabilities = ["read"] }`)
	must(t, err)
	_, err = policies.Put(ctx, "writer", `path "secret/data/app/*" { capabilities = ["create"] }`)
	must(t, err)
	return f
}

// follow runs background work until the test ends.
func follow(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// token makes a child of root.
func (f *fixture) token(t testing.TB, r token.Request) string {
	t.Helper()
	root, err := f.tokens.Lookup(t.Context(), f.root)
	must(t, err)
	secret, _, err := f.tokens.Create(t.Context(), root, r)
	must(t, err)
	return secret.Reveal()
}

func (f *fixture) ask(t testing.TB, tok, method, path, body string, change ...func(*Request)) (int, map[string]any) {
	t.Helper()
	f.mu.Lock()
	f.n++
	r := &Request{
		ID: fmt.Sprintf("r%d", f.n), Method: method, Path: path, Body: []byte(body), Token: tok, Query: url.Values{},
		Remote: netip.MustParseAddrPort("127.0.0.1:5000"),
	}
	f.mu.Unlock()
	for _, c := range change {
		c(r)
	}
	a := f.Serve(t.Context(), r)
	var out map[string]any
	if len(a.Body) > 0 {
		if err := json.Unmarshal(a.Body, &out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, a.Body)
		}
	}
	return a.Status, out
}

func (f *fixture) entries(t testing.TB) []audit.Entry {
	t.Helper()
	var all []audit.Entry
	for e, err := range audit.Read(t.Context(), f.dir, audit.ReadOptions{}) {
		must(t, err)
		all = append(all, e)
	}
	return all
}

func TestWritesAndReads(t *testing.T) {
	f := newFixture(t)
	if status, out := f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"hunter2","odd":1}`); status != 200 || fmt.Sprint(out["warnings"]) != "[Endpoint ignored these unrecognized parameters: [odd]]" {
		t.Fatal(status, out)
	}
	status, out := f.ask(t, f.root, "GET", "secret/data/app/db", "")
	if status != 200 || out["data"].(map[string]any)["text"] != "hunter2" || out["request_id"] != "r2" || out["mount_type"] != "jar" {
		t.Fatal(status, out)
	}
	for _, key := range []string{"lease_id", "renewable", "lease_duration", "wrap_info", "warnings", "auth"} {
		if _, ok := out[key]; !ok {
			t.Errorf("the envelope has no %s", key)
		}
	}
}

func TestRefusals(t *testing.T) {
	f := newFixture(t)
	reader := f.token(t, token.Request{Policies: []string{"reader"}})
	writer := f.token(t, token.Request{Policies: []string{"writer"}})
	bound := f.token(t, token.Request{Policies: []string{"reader"}, BoundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"hunter2"}`)
	for name, c := range map[string]struct {
		token, method, path, body string
		status                    int
		text                      string
	}{
		"no token":                   {"", "GET", "secret/data/app/db", "", 403, "permission denied"},
		"bad token":                  {"hvs.nonsense", "GET", "secret/data/app/db", "", 403, "permission denied"},
		"bound elsewhere":            {bound, "GET", "secret/data/app/db", "", 403, "permission denied"},
		"no policy":                  {reader, "GET", "secret/data/other", "", 403, "permission denied"},
		"read only":                  {reader, "POST", "secret/data/app/db", `{"text":"x"}`, 403, "permission denied"},
		"create only, exists":        {writer, "POST", "secret/data/app/db", `{"text":"x"}`, 403, "permission denied"},
		"create only, new":           {writer, "POST", "secret/data/app/new", `{"text":"x"}`, 204, ""},
		"plain spelling":             {reader, "GET", "secret/data/app/db", "", 200, ""},
		"missing secret":             {reader, "GET", "secret/data/app/none", "", 404, ""},
		"sudo without sudo":          {reader, "GET", "secret/sudo/app/db", "", 403, "permission denied"},
		"unknown mount, not allowed": {reader, "GET", "nowhere/x", "", 403, "permission denied"},
		"unknown mount, allowed":     {f.root, "GET", "nowhere/x", "", 404, "no handler for route"},
		"unknown path, not allowed":  {reader, "GET", "secret/nothing", "", 403, "permission denied"},
		"unknown path, allowed":      {f.root, "GET", "secret/nothing", "", 404, "unsupported path"},
		"unsupported operation":      {f.root, "DELETE", "secret/data/app/db", "", 405, "unsupported operation"},
		"odd method":                 {f.root, "BREW", "secret/data/app/db", "", 405, "unsupported operation"},
		"bad JSON, not allowed":      {reader, "POST", "secret/data/other", `{"text":`, 403, "permission denied"},
		"bad JSON":                   {f.root, "POST", "secret/data/app/db", `{"text":`, 400, "not valid JSON"},
		"duplicate key":              {f.root, "POST", "secret/data/app/db", `{"text":"a","text":"b"}`, 400, "twice"},
		"wrong type":                 {f.root, "POST", "secret/data/app/db", `{"text":{"hunter3":1}}`, 400, "text: it must be a string"},
		"broken handler":             {f.root, "POST", "secret/data/app/db", `{"text":"fail"}`, 500, "internal error"},
		"login refused":              {"", "POST", "auth/door/login/bob", `{"text":"wrong"}`, 400, "invalid username or password"},
		"login from elsewhere":       {"", "POST", "auth/door/login/bob", `{"text":"open sesame"}`, 403, "permission denied"},
		"wrap TTL":                   {reader, "GET", "secret/data/app/db", "", 200, ""},
	} {
		status, out := f.ask(t, c.token, c.method, c.path, c.body)
		if status != c.status {
			t.Errorf("%s: %d %v, want %d", name, status, out, c.status)
		}
		if status >= 400 {
			errs := fmt.Sprint(out["errors"])
			if !strings.Contains(errs, c.text) || strings.Contains(errs, "hunter") || strings.Contains(errs, "cause-text") {
				t.Errorf("%s: errors %s, want %q", name, errs, c.text)
			}
			if out["request_id"] == "" {
				t.Errorf("%s: no request id", name)
			}
		}
	}
	if _, out := f.ask(t, reader, "GET", "secret/data/app/db", ""); out["data"].(map[string]any)["text"] != "hunter2" {
		t.Error("a refused write changed the secret")
	}
	for _, ttl := range []string{"-1s", "1000h", "soon"} {
		if status, _ := f.ask(t, f.root, "GET", "secret/data/app/db", "", func(r *Request) { r.WrapTTL = ttl }); status != 400 {
			t.Errorf("wrap ttl %s: %d", ttl, status)
		}
	}
	if status, _ := f.ask(t, f.root, "GET", "secret/data/app/db", "", func(r *Request) { r.Namespace = "team" }); status != 404 {
		t.Errorf("unknown namespace: %d", status)
	}
}

func TestDenialsAreExplained(t *testing.T) {
	f := newFixture(t)
	reader := f.token(t, token.Request{Policies: []string{"reader"}, DisplayName: "bob"})
	_, out := f.ask(t, reader, "POST", "secret/data/app/db", `{"text":"x"}`)
	d, err := f.Why(out["request_id"].(string), "")
	must(t, err)
	if d.Decision.Allowed || d.Decision.Policy != "reader" || d.Decision.Missing == "" || d.Decision.Fix == "" || len(d.Explain().Lines()) == 0 {
		t.Errorf("%+v", d.Decision)
	}
	if _, err := f.Why("r999", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown request: %v", err)
	}
	for i := range MaxDenials + 10 {
		f.denials.remember(&Denial{RequestID: fmt.Sprintf("x%d", i)})
	}
	if _, err := f.Why("x9", ""); err == nil {
		t.Error("more denials are kept than stated")
	}
	if _, err := f.Why("x10", ""); err != nil || len(f.denials.byID) != MaxDenials {
		t.Errorf("%v, %d kept", err, len(f.denials.byID))
	}
}

func TestEverythingIsAuditedAndNothingSecretIs(t *testing.T) {
	f := newFixture(t)
	reader := f.token(t, token.Request{Policies: []string{"reader"}, DisplayName: "bob"})
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"correct-horse"}`, func(r *Request) {
		r.Traceparent, r.Correlation = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "corr-1"
	})
	f.ask(t, reader, "GET", "secret/data/app/db", "")
	f.ask(t, reader, "POST", "secret/data/app/db", `{"text":"correct-horse-2"}`)
	f.ask(t, "", "GET", "secret/data/app/db", "")
	f.ask(t, "hvs.correct-horse", "GET", "secret/data/app/db", "")
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"correct-horse":`)
	f.ask(t, "", "GET", "/bad//path", "", func(r *Request) { r.Problem = fault.New(fault.Invalid, "no path") })
	f.ask(t, "", "POST", "auth/door/login/bob", `{"text":"open sesame"}`, func(r *Request) { r.Remote = netip.MustParseAddrPort("10.1.2.3:1") })
	all := f.entries(t)
	var got []string
	for _, e := range all {
		got = append(got, fmt.Sprintf("%s %s %s %d", e.Type, e.Request.ID, e.Request.Operation, e.Status))
	}
	want := []string{
		"intent r1 create 0", "outcome r1 create 204", "outcome r2 read 200", "outcome r3 update 403",
		"outcome r4 read 403", "outcome r5 read 403", "outcome r6 update 400", "outcome r7 read 400",
		"intent r8 update 0", "outcome r8 update 200",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("entries:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if e := all[1]; e.Request.TraceID != "0af7651916cd43dd8448eb211c80319c" || e.Request.CorrelationID != "corr-1" || e.Request.MountPoint != "secret/" || fmt.Sprint(e.Request.Fields) != "[text]" {
		t.Errorf("%+v", e.Request)
	}
	if e := all[2]; e.Subject.Version != 1 || e.Subject.Fingerprint == "" || e.Principal.DisplayName == "" || e.Principal.Accessor == "" || !e.Decision.Allowed || e.Decision.Policy != "reader" {
		t.Errorf("%+v", e)
	}
	if e := all[3]; e.Decision.Allowed || e.Decision.Missing == "" {
		t.Errorf("%+v", e.Decision)
	}
	if e := all[9]; e.Principal.DisplayName != "door-bob" || e.Principal.Accessor == "" {
		t.Errorf("the login's outcome does not name its token: %+v", e.Principal)
	}
	files, err := filepath.Glob(filepath.Join(f.dir, "*"))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, secret := range []string{"correct-horse", "open sesame", f.root, reader} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s holds %q", file, secret)
			}
		}
	}
}

func TestNothingHappensWithoutTheAuditLog(t *testing.T) {
	f := newFixture(t)
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"one"}`)
	segment := filepath.Join(f.dir, "audit-00000001.log")
	must(t, os.Remove(segment))
	for _, method := range []string{"GET", "POST"} {
		status, out := f.ask(t, f.root, method, "secret/data/app/db", `{"text":"two"}`)
		if status != 503 && status != 500 || out["data"] != nil {
			t.Errorf("%s: %d %v", method, status, out)
		}
	}
	j := f.services.Load().Realms.Root().Mounts.At("secret").State.(*jar)
	if got, err := j.read(t.Context(), route.Caller{}, jarPath{Path: "app/db"}); err != nil || got.Text != "one" {
		t.Errorf("the secret is %q, %v", got.Text.Reveal(), err)
	}
}

func TestUseLimits(t *testing.T) {
	f := newFixture(t)
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"x"}`)
	tok := f.token(t, token.Request{Policies: []string{"reader"}, NumUses: 3})
	var ok, denied int
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 20 {
		wg.Go(func() {
			status, _ := f.ask(t, tok, "GET", "secret/data/app/db", "")
			mu.Lock()
			defer mu.Unlock()
			switch status {
			case 200:
				ok++
			case 403:
				denied++
			}
		})
	}
	wg.Wait()
	if ok != 3 || denied != 17 {
		t.Errorf("%d uses of 3 went through, %d were denied", ok, denied)
	}
}

func TestLoginAndDisabledMethod(t *testing.T) {
	f := newFixture(t)
	near := func(r *Request) { r.Remote = netip.MustParseAddrPort("10.1.2.3:1") }
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"x"}`)
	status, out := f.ask(t, "", "POST", "auth/door/login/bob", `{"text":"open sesame"}`, near)
	if status != 200 {
		t.Fatal(status, out)
	}
	a := out["auth"].(map[string]any)
	tok := a["client_token"].(string)
	if fmt.Sprint(a["policies"]) != "[default reader]" || a["lease_duration"] != 3600.0 || a["orphan"] != true || a["token_type"] != "service" {
		t.Errorf("%v", a)
	}
	if status, _ := f.ask(t, tok, "GET", "secret/data/app/db", "", near); status != 200 {
		t.Errorf("near: %d", status)
	}
	if status, _ := f.ask(t, tok, "GET", "secret/data/app/db", ""); status != 403 {
		t.Errorf("far: %d", status)
	}
	must(t, f.services.Load().Realms.Root().Mounts.Disable(t.Context(), "auth/door"))
	if status, _ := f.ask(t, tok, "GET", "secret/data/app/db", "", near); status != 403 {
		t.Errorf("after the method was disabled: %d", status)
	}
}

func TestWrapping(t *testing.T) {
	f := newFixture(t)
	f.ask(t, f.root, "POST", "secret/data/app/db", `{"text":"wrapped-text"}`)
	status, out := f.ask(t, f.root, "GET", "secret/data/app/db", "", func(r *Request) { r.WrapTTL = "5m" })
	info, ok := out["wrap_info"].(map[string]any)
	if status != 200 || !ok || out["data"] != nil || info["ttl"] != 300.0 || info["creation_path"] != "secret/data/app/db" {
		t.Fatal(status, out)
	}
	unwrapped, err := f.tokens.Unwrap(t.Context(), info["token"].(string))
	must(t, err)
	body := unwrapped.Body
	if !strings.Contains(string(body), "wrapped-text") || !strings.Contains(string(body), `"request_id":"r2"`) {
		t.Errorf("%s", body)
	}
}

func TestHelpNeedsAToken(t *testing.T) {
	f := newFixture(t)
	help := func(r *Request) { r.Help = true }
	nobody := f.token(t, token.Request{})
	if status, _ := f.ask(t, "", "GET", "secret/data/x", "", help); status != 403 {
		t.Errorf("without a token: %d", status)
	}
	status, out := f.ask(t, nobody, "GET", "secret/data/x", "", help)
	if status != 200 || !strings.Contains(fmt.Sprint(out["help"]), "Read a text.") {
		t.Errorf("%d %v", status, out)
	}
}

func TestEnginesMayAskWhatTheirCallerMayDo(t *testing.T) {
	f := newFixture(t)
	asker := f.token(t, token.Request{Policies: []string{"asker", "reader"}})
	root := f.services.Load().Realms.Root()
	_, err := root.Policies.Put(t.Context(), "asker", `path "secret/can/*" { capabilities = ["read"] }`)
	must(t, err)
	for path, want := range map[string]string{
		"secret/data/app/db": "true false", // the reader's rule is written without data/
		"secret/data/other":  "false false", "nowhere/x": "false false",
	} {
		if _, out := f.ask(t, asker, "GET", "secret/can/"+path, ""); fmt.Sprint(out["data"]) != "map[text:"+want+"]" {
			t.Errorf("%s: %v, want %s", path, out, want)
		}
	}
	if _, out := f.ask(t, f.root, "GET", "secret/can/secret/data/other", ""); fmt.Sprint(out["data"]) != "map[text:true true]" {
		t.Errorf("root may not: %v", out)
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestSealed(t *testing.T) {
	f := newFixture(t)
	f.Shut()
	for _, path := range []string{"secret/data/app/db", "sys/mounts", "nowhere"} {
		if status, out := f.ask(t, f.root, "GET", path, ""); status != 503 {
			t.Errorf("%s: %d %v", path, status, out)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	f := newFixture(b)
	f.ask(b, f.root, "POST", "secret/data/app/db", `{"text":"`+strings.Repeat("x", 1024)+`"}`)
	tok := f.token(b, token.Request{Policies: []string{"reader"}})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := &Request{ID: "r", Method: "GET", Path: "secret/data/app/db", Token: tok, Remote: netip.MustParseAddrPort("127.0.0.1:5000")}
			if a := f.Serve(b.Context(), r); a.Status != 200 {
				b.Fatal(a.Status)
			}
		}
	})
}
