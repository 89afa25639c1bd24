package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/google/go-cmp/cmp"
)

// start runs a server and returns a client of its root.
func start(t *testing.T) (*apptest.Server, *client.Client) {
	t.Helper()
	s := apptest.Start(t, "")
	return s, connect(t, s, s.Root)
}

func connect(t *testing.T, s *apptest.Server, token string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Address: s.URL(), CACert: s.CAFile, Token: client.Secret(token)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// must returns a value or ends the test.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type database struct {
	User     string        `json:"user"`
	Password client.Secret `json:"password"`
}

func TestVersionsOfASecret(t *testing.T) {
	_, c := start(t)
	ctx, kv := t.Context(), c.KV("secret")
	if _, err := kv.Get(ctx, "app/db"); !client.IsNotFound(err) {
		t.Fatalf("of nothing: %v", err)
	}
	first := must[*client.VersionInfo](t)(kv.Put(ctx, "app/db", database{"app", "p1"}, client.CAS(0)))
	if first.Number != 1 || first.Created.IsZero() || !slices.Equal(first.Labels, []string{client.Active}) {
		t.Errorf("first version: %+v", first)
	}
	if _, err := kv.Put(ctx, "app/db", database{"app", "px"}, client.CAS(0)); !client.IsConflict(err) {
		t.Errorf("a second first version: %v", err)
	}
	must[*client.VersionInfo](t)(kv.Put(ctx, "app/db", database{"app", "p2"}, client.CAS(1)))
	must[*client.VersionInfo](t)(kv.Patch(ctx, "app/db", map[string]any{"password": client.Secret("p3"), "port": 5432}))

	active := must[*client.Version](t)(kv.Get(ctx, "app/db"))
	var got struct {
		database
		Port int `json:"port"`
	}
	ok(t, active.Decode(&got))
	if active.Number != 3 || got.User != "app" || got.Password.Reveal() != "p3" || got.Port != 5432 {
		t.Errorf("active: %d %q %q %d", active.Number, got.User, got.Password.Reveal(), got.Port)
	}
	old := must[*client.Version](t)(kv.GetVersion(ctx, "app/db", 1))
	if password := must[client.Secret](t)(old.Text("password")); password.Reveal() != "p1" {
		t.Errorf("version 1: %q", password.Reveal())
	}
	if _, err := old.Text("nothing"); err == nil {
		t.Error("a member that is not there")
	}
	if _, err := active.Text("port"); err == nil || strings.Contains(err.Error(), "5432") {
		t.Errorf("a number as text: %v", err)
	}
}

func TestDeletedVersions(t *testing.T) {
	_, c := start(t)
	ctx, kv := t.Context(), c.KV("/secret/")
	for i := range 3 {
		must[*client.VersionInfo](t)(kv.Put(ctx, "a b/ü%2f", map[string]int{"i": i}))
	}
	ok(t, kv.Delete(ctx, "a b/ü%2f"))
	ok(t, kv.Delete(ctx, "a b/ü%2f", 1))
	for _, number := range []uint64{1, 3} {
		if _, err := kv.GetVersion(ctx, "a b/ü%2f", number); !client.IsNotFound(err) {
			t.Errorf("version %d after its deletion: %v", number, err)
		}
	}
	ok(t, kv.Undelete(ctx, "a b/ü%2f", 1, 3))
	ok(t, kv.Destroy(ctx, "a b/ü%2f", 2))
	if v := must[*client.Version](t)(kv.Get(ctx, "a b/ü%2f")); v.Number != 3 {
		t.Errorf("after undelete: %d", v.Number)
	}
	m := must[*client.Metadata](t)(kv.Metadata(ctx, "a b/ü%2f"))
	if !m.Versions[2].Destroyed || m.Versions[1].Destroyed || !m.Versions[1].Deletion.IsZero() || m.Newest != 3 || m.Labels[client.Active] != 3 {
		t.Errorf("metadata: %+v", m)
	}
	ok(t, kv.DeleteMetadata(ctx, "a b/ü%2f"))
	if _, err := kv.Metadata(ctx, "a b/ü%2f"); !client.IsNotFound(err) {
		t.Errorf("after all is deleted: %v", err)
	}
}

// A deleted version is a refusal that says when it was deleted.
func TestTheAnswerBesideARefusal(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	must[*client.VersionInfo](t)(c.KV("secret").Put(ctx, "x", map[string]int{"i": 1}))
	ok(t, c.KV("secret").Delete(ctx, "x"))
	answer, err := c.Do(ctx, client.Request{Path: "secret/data/x"})
	if !client.IsNotFound(err) || answer == nil || answer.Status != 404 {
		t.Fatalf("%v, %v", answer, err)
	}
	var got struct {
		Metadata client.VersionInfo `json:"metadata"`
	}
	ok(t, answer.Decode(&got))
	if got.Metadata.Number != 1 || got.Metadata.Deletion.IsZero() || answer.RequestID == "" {
		t.Errorf("%+v", got)
	}
}

func TestPlainSecrets(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	ok(t, c.Sys().Mount(ctx, "old", client.Mount{Type: "kv", Options: map[string]string{"version": "1"}}))
	for _, p := range []client.Plain{c.Plain("old"), c.Plain("")} {
		if names := must[[]string](t)(p.List(ctx, "")); len(names) > 0 {
			t.Errorf("names at first: %q", names)
		}
		ok(t, p.Put(ctx, "a/x", database{"app", "p1"}))
		ok(t, p.Put(ctx, "a/x", database{"app", "p2"}))
		ok(t, p.Put(ctx, "b", database{}))
		var got database
		ok(t, must[client.Raw](t)(p.Get(ctx, "a/x")).Decode(&got))
		if got.Password.Reveal() != "p2" {
			t.Errorf("read: %q", got.Password.Reveal())
		}
		if names := must[[]string](t)(p.List(ctx, "/")); !slices.Equal(names, []string{"a/", "b"}) {
			t.Errorf("names: %q", names)
		}
		if names := must[[]string](t)(p.List(ctx, "a")); !slices.Equal(names, []string{"x"}) {
			t.Errorf("names below: %q", names)
		}
		ok(t, p.Delete(ctx, "a/x"))
		if _, err := p.Get(ctx, "a/x"); !client.IsNotFound(err) {
			t.Errorf("after its deletion: %v", err)
		}
	}
}

// One client serves many callers, with tokens of their own, over few
// connections.
func TestSharedByMany(t *testing.T) {
	_, c := start(t)
	ctx, done := t.Context(), make(chan error)
	const callers, rounds = 16, 10
	for i := range callers {
		go func() {
			done <- func() error {
				auth, err := c.Token().Create(ctx, client.TokenRequest{Policies: []string{"root"}, TTL: client.Seconds(time.Hour)})
				if err != nil {
					return err
				}
				kv, path := c.WithToken(auth.Token).KV("secret"), fmt.Sprint("many/", i)
				for n := range uint64(rounds) {
					if _, err := kv.Put(ctx, path, map[string]uint64{"n": n}, client.CAS(n)); err != nil {
						return err
					}
					v, err := kv.Get(ctx, path)
					if err != nil || v.Number != n+1 || string(v.Data.Reveal()) != fmt.Sprintf(`{"n":%d}`, n) {
						return fmt.Errorf("%s: version %+v, %w", path, v, err)
					}
				}
				return nil
			}()
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestOverASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "coffer.sock")
	s := apptest.Start(t, fmt.Sprintf("listener \"unix\" {\n  address = %q\n}\n", path))
	c, err := client.New(client.Config{Address: "unix://" + path, Token: client.Secret(s.Root)})
	ok(t, err)
	defer c.Close()
	must[*client.VersionInfo](t)(c.KV("secret").Put(t.Context(), "x", map[string]int{"i": 1}))
}

func TestLabels(t *testing.T) {
	_, c := start(t)
	ctx, kv := t.Context(), c.KV("")
	must[*client.VersionInfo](t)(kv.Put(ctx, "app", map[string]string{"k": "1"}))
	staged := must[*client.VersionInfo](t)(kv.Stage(ctx, "app", client.Pending, map[string]string{"k": "2"}, client.CAS(1)))
	if staged.Number != 2 || must[*client.Version](t)(kv.Get(ctx, "app")).Number != 1 {
		t.Errorf("staged: %+v", staged)
	}
	if v := must[*client.Version](t)(kv.GetLabel(ctx, "app", client.Pending)); v.Number != 2 {
		t.Errorf("pending: %d", v.Number)
	}
	if _, err := kv.Promote(ctx, "app", client.Move{CAS: new(client.CAS(7))}); !client.IsConflict(err) {
		t.Errorf("promoted against its condition: %v", err)
	}
	labels := must[*client.Labels](t)(kv.Promote(ctx, "app", client.Move{CAS: new(client.CAS(1))}))
	if labels.Labels[client.Active] != 2 || labels.Labels[client.Previous] != 1 {
		t.Errorf("promoted: %+v", labels)
	}
	labels = must[*client.Labels](t)(kv.Rollback(ctx, "app", client.Move{}))
	if labels.Labels[client.Active] != 1 {
		t.Errorf("rolled back: %+v", labels)
	}
	must[*client.Labels](t)(kv.SetLabel(ctx, "app", "canary", 2, client.CAS(0)))
	if _, err := kv.SetLabel(ctx, "app", "canary", 1, client.CAS(1)); !client.IsConflict(err) {
		t.Errorf("moved against its condition: %v", err)
	}
	must[*client.Labels](t)(kv.SetLabel(ctx, "app", client.Deprecated, 2))
	if v := must[*client.Version](t)(kv.GetLabel(ctx, "app", "canary")); v.Number != 2 || len(v.Warnings) != 1 {
		t.Errorf("canary, deprecated: %d, warnings %q", v.Number, v.Warnings)
	}
	must[*client.Labels](t)(kv.RemoveLabel(ctx, "app", client.Deprecated, 2))
	must[*client.Labels](t)(kv.RemoveLabel(ctx, "app", "canary", 0))
	labels = must[*client.Labels](t)(kv.Labels(ctx, "app"))
	if _, there := labels.Labels["canary"]; there || len(labels.Deprecated) > 0 {
		t.Errorf("after removal: %+v", labels)
	}
}

func TestMetadata(t *testing.T) {
	_, c := start(t)
	ctx, kv := t.Context(), c.KV("secret")
	expires := client.Time{Time: time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC)}
	ok(t, kv.SetMetadata(ctx, "app", client.MetadataChange{
		Owner: new("payments"), Kind: new("database-password"), Expires: &expires, MaxVersions: new(3), DeleteAfter: new(client.Seconds(48 * time.Hour)),
		Custom: map[string]*string{"team": new("a"), "tier": new("1")}, Tags: map[string]*string{"env": new("prod")},
		Validators: &client.Validators{RequiredKeys: []string{"password"}, Regex: map[string]string{"user": "^[a-z]+$"}},
	}))
	ok(t, kv.PatchMetadata(ctx, "app", client.MetadataChange{Custom: map[string]*string{"tier": nil}, Owner: new("billing")}))
	m := must[*client.Metadata](t)(kv.Metadata(ctx, "app"))
	if m.Owner != "billing" || m.Kind != "database-password" || !m.Expires.Equal(expires.Time) || m.MaxVersions != 3 || m.DeleteAfter.Duration() != 48*time.Hour ||
		!maps.Equal(m.Custom, map[string]string{"team": "a"}) || !maps.Equal(m.Tags, map[string]string{"env": "prod"}) || m.Validators.Regex["user"] != "^[a-z]+$" {
		t.Errorf("metadata: %+v", m)
	}
	if _, err := kv.Put(ctx, "app", map[string]string{"user": "x"}); err == nil || client.IsConflict(err) {
		t.Errorf("data that breaks the rules: %v", err)
	}
	ok(t, kv.SetMetadata(ctx, "app", client.MetadataChange{CASRequired: new(true), Validators: &client.Validators{}}))
	if _, err := kv.Put(ctx, "app", map[string]string{"user": "x"}); err == nil {
		t.Error("a write without the condition that is required")
	}
}

func TestListAndSearch(t *testing.T) {
	_, c := start(t)
	ctx, kv := t.Context(), c.KV("secret")
	for name, err := range kv.List(ctx, "none") {
		t.Errorf("in nothing: %q, %v", name, err)
	}
	const many = 1003 // more than one page
	var want []string
	for i := range many {
		name := fmt.Sprintf("k%04d", i)
		ok(t, kv.SetMetadata(ctx, "many/"+name, client.MetadataChange{Owner: new("me")}))
		want = append(want, name)
	}
	ok(t, kv.SetMetadata(ctx, "many/sub/x", client.MetadataChange{Owner: new("you"), Tags: map[string]*string{"env": new("prod")}}))
	want = append(want, "sub/")
	for _, folder := range []string{"many", "many/", "/many"} {
		var got []string
		for name, err := range kv.List(ctx, folder) {
			ok(t, err)
			got = append(got, name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", folder, diff)
		}
	}
	for name := range kv.List(ctx, "many") { // which may be left early
		if name == "k0001" {
			break
		}
	}
	var found []string
	for f, err := range kv.Search(ctx, client.Query{Owner: "me"}) {
		ok(t, err)
		if f.Owner != "me" {
			t.Errorf("found %+v", f)
		}
		found = append(found, strings.TrimPrefix(f.Path, "many/"))
	}
	if diff := cmp.Diff(want[:many], found); diff != "" {
		t.Errorf("search: %s", diff)
	}
	found = nil
	for f, err := range kv.Search(ctx, client.Query{Folder: "many", Text: "SUB", Tags: []string{"env=prod"}}) {
		ok(t, err)
		found = append(found, f.Path)
	}
	if !slices.Equal(found, []string{"many/sub/x"}) {
		t.Errorf("search by tag: %q", found)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range kv.List(ctx, "many") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("list after the context's end: %v", err)
		}
	}
}
