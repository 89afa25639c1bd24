package app_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// workers are 32 workers of every kind, with what they need.
func workers(t *testing.T, c *apptest.Client) []worker {
	var all []worker
	for i := range 12 {
		all = append(all, &casWriter{path: fmt.Sprintf("secret/data/cas/%d", i)})
	}
	for i := range 8 {
		all = append(all, &plainWriter{folder: fmt.Sprintf("secret/data/plain/%d", i), wrote: map[string]string{}})
	}
	for range 4 {
		all = append(all, &tokenWorker{})
	}
	for i := range 3 {
		name := fmt.Sprintf("labels/%d", i)
		for range 5 {
			c.Must(t, 200, "POST", "secret/data/"+name, `{"data":{"a":"b"}}`)
		}
		all = append(all, &labelMover{path: "secret/labels/" + name})
	}
	for i := range 3 {
		all = append(all, &policyWriter{name: fmt.Sprintf("kill-%d", i)})
	}
	for i := range 2 {
		all = append(all, &mounter{name: fmt.Sprintf("mounted-%d", i)})
	}
	return all
}

// casWriter writes one secret with check-and-set.
type casWriter struct {
	path    string
	version int // acknowledged
	tried   int // written without an answer, if above version
}

func (w *casWriter) value(version int) string { return fmt.Sprintf("%s version %d", w.path, version) }

func (w *casWriter) work(ask asker) bool {
	w.tried = w.version + 1
	body := fmt.Sprintf(`{"data":{"v":%q},"options":{"cas":%d}}`, w.value(w.tried), w.version)
	if ask(200, "POST", w.path, "", body) == nil {
		return false
	}
	w.version = w.tried
	return true
}

func (w *casWriter) check(t *testing.T, c *apptest.Client) {
	a := c.Do(t, "GET", w.path, c.Root, "")
	if a.Status == 404 && w.version == 0 {
		return
	}
	var got struct {
		Data     map[string]string
		Metadata struct{ Version int }
	}
	if a.Status != 200 {
		t.Errorf("%s: version %d was acknowledged; read: %d %s", w.path, w.version, a.Status, a.Body)
		return
	}
	a.Into(t, &got)
	if v := got.Metadata.Version; v != w.version && v != w.tried || got.Data["v"] != w.value(v) {
		t.Errorf("%s: version %d was acknowledged and %d was tried; it is %d with %v", w.path, w.version, w.tried, v, got.Data)
	}
	w.version = got.Metadata.Version
}

// plainWriter writes one new secret after the other.
type plainWriter struct {
	folder string
	wrote  map[string]string // since the last check
	n      int
}

func (w *plainWriter) work(ask asker) bool {
	w.n++
	path, value := fmt.Sprintf("%s/%d", w.folder, w.n), fmt.Sprintf("value %d", w.n)
	if ask(200, "POST", path, "", fmt.Sprintf(`{"data":{"v":%q}}`, value)) == nil {
		return false
	}
	w.wrote[path] = value
	return true
}

func (w *plainWriter) check(t *testing.T, c *apptest.Client) {
	for path, value := range w.wrote {
		a := c.Do(t, "GET", path, c.Root, "")
		if a.Status != 200 || !strings.Contains(string(a.Body), value) {
			t.Errorf("%s was acknowledged with %q; read: %d %s", path, value, a.Status, a.Body)
		}
	}
	clear(w.wrote)
}

// tokenWorker makes a token and a child of it, revokes the parent, and so on.
type tokenWorker struct {
	parent, child string
	families      int      // made so far
	revoking      bool     // a revocation has no answer
	revoked       []string // acknowledged, with the children of those revoked
	live          []string // left alone since the last check
}

const newToken = `{"policies":["root"],"ttl":"1h"}`

func (w *tokenWorker) work(ask asker) bool {
	switch {
	case w.parent == "":
		a := ask(200, "POST", "auth/token/create", "", newToken)
		if a == nil {
			return false
		}
		w.parent = a.Auth.Token
	case w.child == "":
		a := ask(200, "POST", "auth/token/create", w.parent, newToken)
		if a == nil {
			return false
		}
		w.child = a.Auth.Token
		w.families++
	case w.families%4 == 0:
		w.live = append(w.live, w.parent, w.child)
		w.parent, w.child = "", ""
	default:
		w.revoking = true
		if ask(204, "POST", "auth/token/revoke", "", fmt.Sprintf(`{"token":%q}`, w.parent)) == nil {
			return false
		}
		w.revoking = false
		w.revoked = append(w.revoked, w.parent, w.child)
		w.parent, w.child = "", ""
	}
	return true
}

func (w *tokenWorker) check(t *testing.T, c *apptest.Client) {
	valid := func(token string) bool { return c.Do(t, "GET", "auth/token/lookup-self", token, "").Status == 200 }
	for _, token := range w.live {
		if !valid(token) {
			t.Errorf("a token that nobody revoked is not valid")
		}
	}
	const recent = 40
	for _, token := range w.revoked[max(0, len(w.revoked)-recent):] {
		if valid(token) {
			t.Errorf("a revoked token is valid")
		}
	}
	if w.revoking && !valid(w.parent) {
		w.revoking = false
		if w.child != "" && valid(w.child) {
			t.Errorf("the child of a revoked token is valid")
		}
		w.revoked = append(w.revoked, w.parent, w.child)
		w.parent, w.child = "", ""
	} else if w.parent != "" && !valid(w.parent) || w.child != "" && !valid(w.child) {
		t.Errorf("a token that nobody revoked is not valid")
	}
	w.live = w.live[:0]
}

// labelMover moves a label with check-and-set.
type labelMover struct {
	path      string
	at, tried int
}

func (w *labelMover) work(ask asker) bool {
	w.tried = w.at%5 + 1
	body := fmt.Sprintf(`{"label":"canary","version":%d,"cas":%d}`, w.tried, w.at)
	if ask(200, "POST", w.path, "", body) == nil {
		return false
	}
	w.at = w.tried
	return true
}

func (w *labelMover) check(t *testing.T, c *apptest.Client) {
	var got struct{ Labels map[string]int }
	c.Must(t, 200, "GET", w.path, "").Into(t, &got)
	if at := got.Labels["canary"]; at != w.at && at != w.tried {
		t.Errorf("%s: the label was moved to %d and perhaps to %d; it is at %d", w.path, w.at, w.tried, at)
	} else {
		w.at = at
	}
}

// policyWriter replaces a policy.
type policyWriter struct {
	name      string
	at, tried int
}

func (w *policyWriter) text(n int) string {
	return fmt.Sprintf("path \"secret/data/%s/%d\" { capabilities = [\"read\"] }", w.name, n)
}

func (w *policyWriter) work(ask asker) bool {
	w.tried = w.at + 1
	if ask(204, "POST", "sys/policies/acl/"+w.name, "", encode(map[string]string{"policy": w.text(w.tried)})) == nil {
		return false
	}
	w.at = w.tried
	return true
}

func (w *policyWriter) check(t *testing.T, c *apptest.Client) {
	a := c.Do(t, "GET", "sys/policies/acl/"+w.name, c.Root, "")
	if a.Status == 404 && w.at == 0 {
		return
	}
	var got struct{ Policy string }
	a.Into(t, &got)
	switch got.Policy {
	case w.text(w.at):
	case w.text(w.tried):
		w.at = w.tried
	default:
		t.Errorf("policy %s was written %d times; it is %q", w.name, w.at, got.Policy)
	}
}

// mounter mounts an engine, writes into it and unmounts it, each time at another
// path, because erasing takes its time.
type mounter struct {
	name    string
	n       int
	mounted bool
	wrote   bool
	unsure  bool // a mount or unmount has no answer
}

func (w *mounter) path() string { return fmt.Sprintf("%s-%d", w.name, w.n) }

func (w *mounter) work(ask asker) bool {
	switch {
	case w.mounted && !w.wrote:
		if ask(200, "POST", w.path()+"/data/a", "", `{"data":{"v":"mounted"}}`) == nil {
			return false
		}
		w.wrote = true
		return true
	case w.mounted:
		w.unsure = true
		if ask(204, "DELETE", "sys/mounts/"+w.path(), "", "") == nil {
			return false
		}
	default:
		w.n++
		w.unsure, w.wrote = true, false
		if ask(204, "POST", "sys/mounts/"+w.path(), "", `{"type":"kv","options":{"version":"2"}}`) == nil {
			return false
		}
	}
	w.mounted, w.unsure = !w.mounted, false
	return true
}

func (w *mounter) check(t *testing.T, c *apptest.Client) {
	var mounts map[string]any
	c.Must(t, 200, "GET", "sys/mounts", "").Into(t, &mounts)
	_, mounted := mounts[w.path()+"/"]
	if mounted != w.mounted && !w.unsure {
		t.Errorf("%s: mounted is %v, although %v was acknowledged", w.path(), mounted, w.mounted)
	}
	if mounted && w.wrote {
		if a := c.Do(t, "GET", w.path()+"/data/a", c.Root, ""); a.Status != 200 {
			t.Errorf("%s: what was written there reads %d %s", w.path(), a.Status, a.Body)
		}
	}
	w.mounted, w.unsure = mounted, false
}
