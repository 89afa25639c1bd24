package kv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
	"pgregory.net/rapid"
)

// model is what one secret is said to be, kept in the simplest way.
type model struct {
	exists          bool
	newest, current int
	keep            int
	versions        map[int]*modelVersion
	labels          map[string]int
}

type modelVersion struct {
	data                           map[string]int
	deleted, destroyed, deprecated bool
}

func newModel() *model {
	return &model{versions: map[int]*modelVersion{}, labels: map[string]int{}}
}

func (m *model) readable(n int) bool {
	v := m.versions[n]
	return v != nil && !v.deleted && !v.destroyed
}

func (m *model) activate(n int) {
	if was := m.labels["active"]; was != n {
		delete(m.labels, "previous")
		if was != 0 {
			m.labels["previous"] = was
		}
		m.labels["active"] = n
	}
	if m.labels["pending"] == n {
		delete(m.labels, "pending")
	}
	m.current = max(m.current, n)
}

func (m *model) add(data map[string]int, stage string) {
	m.exists = true
	m.newest++
	m.versions[m.newest] = &modelVersion{data: data}
	if stage == "" {
		m.activate(m.newest)
	} else {
		m.labels[stage] = m.newest
	}
	keep := m.keep
	if keep == 0 {
		keep = kv.DefaultVersions
	}
	for n := range m.versions {
		held := false
		for name, at := range m.labels {
			held = held || at == n && (name != "previous" || keep > 1)
		}
		if n <= m.newest-keep && !held {
			delete(m.versions, n)
			if m.labels["previous"] == n {
				delete(m.labels, "previous")
			}
		}
	}
}

// secret runs random operations on one path of a mount and on the model.
type secret struct {
	e    *enginetest.Engine
	path string
	m    *model
	next int
}

func (s *secret) want(t *rapid.T, ok bool, refused int, method, path, body string) {
	t.Helper()
	a := s.e.Do(method, path, body)
	if good := a.Status < 300; good != ok || !ok && refused != 0 && a.Status != refused {
		t.Fatalf("%s %s %s: %d %v; the model says done=%v status=%d\n%+v", method, path, body, a.Status, a.Err, ok, refused, s.m)
	}
}

func (s *secret) write(t *rapid.T) {
	stage := rapid.SampledFrom([]string{"", "", "", "pending", "canary"}).Draw(t, "stage")
	cas := rapid.IntRange(-1, s.m.newest+1).Draw(t, "cas")
	s.next++
	data := map[string]int{"n": s.next}
	options := map[string]any{}
	ok := true
	if stage != "" {
		options["stage"] = stage
	}
	if cas >= 0 {
		options["cas"] = cas
		ok = cas == s.m.newest || cas != 0 && stage == "" && cas == s.m.labels["active"]
	}
	body, _ := json.Marshal(map[string]any{"data": data, "options": options})
	s.want(t, ok, 400, "POST", "data/"+s.path, string(body))
	if ok {
		s.m.add(data, stage)
	}
}

func (s *secret) patch(t *rapid.T) {
	active := s.m.labels["active"]
	s.next++
	s.want(t, s.m.readable(active), 404, "PATCH", "data/"+s.path, fmt.Sprintf(`{"data":{"m":%d,"n":null}}`, s.next))
	if s.m.readable(active) {
		data := maps.Clone(s.m.versions[active].data)
		delete(data, "n")
		data["m"] = s.next
		s.m.add(data, "")
	}
}

func (s *secret) pick(t *rapid.T) int { return rapid.IntRange(1, s.m.newest+1).Draw(t, "version") }

func (s *secret) change(t *rapid.T) {
	n := s.pick(t)
	v := s.m.versions[n]
	if v == nil {
		v = &modelVersion{}
	}
	verb := rapid.SampledFrom([]string{"delete", "undelete", "destroy"}).Draw(t, "verb")
	s.want(t, true, 0, "POST", verb+"/"+s.path, fmt.Sprintf(`{"versions":[%d]}`, n))
	switch verb {
	case "delete":
		v.deleted = v.deleted || !v.destroyed
	case "undelete":
		v.deleted = v.deleted && v.destroyed
	case "destroy":
		v.destroyed = true
	}
}

func (s *secret) remove(t *rapid.T) {
	s.want(t, true, 0, "DELETE", "data/"+s.path, "")
	if v := s.m.versions[s.m.labels["active"]]; v != nil && !v.destroyed {
		v.deleted = true
	}
}

func (s *secret) move(t *rapid.T) {
	verb := rapid.SampledFrom([]string{"promote", "rollback"}).Draw(t, "verb")
	n, body := s.m.labels[map[string]string{"promote": "pending", "rollback": "previous"}[verb]], `{}`
	if rapid.Bool().Draw(t, "named") {
		n = s.pick(t)
		body = fmt.Sprintf(`{"version":%d}`, n)
	}
	ok := s.m.readable(n) && !s.m.versions[n].deprecated
	s.want(t, ok, 0, "POST", verb+"/"+s.path, body)
	if ok {
		s.m.activate(n)
	}
}

func (s *secret) label(t *rapid.T) {
	n := s.pick(t)
	name := rapid.SampledFrom([]string{"active", "pending", "canary", "blue", "deprecated", "previous", "Bad"}).Draw(t, "label")
	active := s.m.labels["active"]
	ok := s.m.readable(n) && name != "previous" && name != "Bad"
	switch name {
	case "active":
		ok = ok && !s.m.versions[n].deprecated
	case "pending", "deprecated":
		ok = ok && n != active
	}
	s.want(t, ok, 0, "POST", "labels/"+s.path, fmt.Sprintf(`{"label":%q,"version":%d}`, name, n))
	switch {
	case !ok:
	case name == "active":
		s.m.activate(n)
	case name == "deprecated":
		s.m.versions[n].deprecated = true
	default:
		s.m.labels[name] = n
	}
}

func (s *secret) unlabel(t *rapid.T) {
	name := rapid.SampledFrom([]string{"active", "previous", "pending", "canary", "blue", "deprecated"}).Draw(t, "label")
	n := s.pick(t)
	ok := s.m.labels[name] != 0 && name != "active" && name != "previous"
	if name == "deprecated" {
		ok = s.m.versions[n] != nil && s.m.versions[n].deprecated
	}
	s.want(t, ok, 0, "DELETE", fmt.Sprintf("labels/%s?label=%s&version=%d", s.path, name, n), "")
	switch {
	case !ok:
	case name == "deprecated":
		s.m.versions[n].deprecated = false
	default:
		delete(s.m.labels, name)
	}
}

func (s *secret) limit(t *rapid.T) {
	keep := rapid.IntRange(0, 4).Draw(t, "keep")
	s.want(t, true, 0, "POST", "metadata/"+s.path, fmt.Sprintf(`{"max_versions":%d}`, keep))
	s.m.exists, s.m.keep = true, keep
}

func (s *secret) forget(t *rapid.T) {
	if rapid.IntRange(0, 5).Draw(t, "really") > 0 {
		return
	}
	s.want(t, true, 0, "DELETE", "metadata/"+s.path, "")
	s.m = newModel()
}

// check compares everything that can be read with the model.
func (s *secret) check(t *rapid.T) {
	for n := range s.m.newest + 2 {
		s.checkRead(t, fmt.Sprintf("data/%s?version=%d", s.path, n), map[bool]int{true: n, false: s.m.labels["active"]}[n > 0])
	}
	for _, name := range []string{"active", "previous", "pending", "canary", "blue"} {
		s.checkRead(t, "data/"+s.path+"?label="+name, s.m.labels[name])
	}
	a := s.e.Do("GET", "metadata/"+s.path, "")
	if !s.m.exists {
		if a.Status != 404 {
			t.Fatalf("metadata of nothing: %d %s", a.Status, a.Data)
		}
		return
	}
	out, ok := a.Output.(kv.MetadataResponse)
	if !ok {
		t.Fatalf("metadata: %v", a.Err)
	}
	labels := map[string]int{}
	for name, n := range out.Labels {
		labels[name] = int(n)
	}
	if !maps.Equal(labels, s.m.labels) || int(out.Newest) != s.m.newest || int(out.Current) != s.m.current {
		t.Fatalf("metadata %s\nmodel %+v", a.Data, s.m)
	}
	if len(out.Versions) != len(s.m.versions) {
		t.Fatalf("versions %v, model %v", slices.Sorted(maps.Keys(out.Versions)), slices.Sorted(maps.Keys(s.m.versions)))
	}
	for n, v := range s.m.versions {
		got := out.Versions[strconv.Itoa(n)]
		if got.Gone != v.destroyed || got.Deletion.IsZero() == v.deleted || got.Deprecated != v.deprecated {
			t.Fatalf("version %d is %+v, model %+v", n, got, v)
		}
	}
}

func (s *secret) checkRead(t *rapid.T, path string, n int) {
	a := s.e.Do("GET", path, "")
	v := s.m.versions[n]
	if v == nil {
		if a.Status != 404 || a.Output.(kv.ReadResponse).Metadata.Version != 0 {
			t.Fatalf("GET %s: %d %s, want nothing", path, a.Status, a.Data)
		}
		return
	}
	out := a.Output.(kv.ReadResponse)
	if int(out.Metadata.Version) != n || a.Status == 200 != s.m.readable(n) || (a.Notes.Warnings != nil) != (v.deprecated && s.m.readable(n)) {
		t.Fatalf("GET %s: %d %s, model version %d %+v", path, a.Status, a.Data, n, v)
	}
	var data map[string]int
	if err := json.Unmarshal([]byte(orNull(out.Data)), &data); err != nil {
		t.Fatal(err)
	}
	if s.m.readable(n) && !maps.Equal(data, v.data) || !s.m.readable(n) && out.Data != nil {
		t.Fatalf("GET %s: %v, want %v", path, data, v.data)
	}
}

func orNull(b []byte) string {
	if b == nil {
		return "null"
	}
	return string(b)
}

// TestModel compares a mount with the model under random operations on two
// secrets, one below the other, and at the end looks for rows that nothing
// refers to.
func TestModel(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		store := memory.New()
		e := enginetest.Open(outer, kv.V2.Spec(), enginetest.Options{Storage: store})
		secrets := []*secret{{e: e, path: "a", m: newModel()}, {e: e, path: "a/b", m: newModel()}}
		on := func(fn func(*secret, *rapid.T)) func(*rapid.T) {
			return func(t *rapid.T) { fn(rapid.SampledFrom(secrets).Draw(t, "secret"), t) }
		}
		known := func(fn func(*secret, *rapid.T)) func(*rapid.T) {
			return on(func(s *secret, t *rapid.T) {
				if s.m.exists {
					fn(s, t)
				}
			})
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": on((*secret).write), "patch": on((*secret).patch), "change": known((*secret).change),
			"remove": on((*secret).remove), "move": known((*secret).move), "label": known((*secret).label),
			"unlabel": known((*secret).unlabel), "limit": on((*secret).limit), "forget": on((*secret).forget),
			"": func(t *rapid.T) {
				for _, s := range secrets {
					s.check(t)
				}
			},
		})
		rows := 0
		for _, s := range secrets {
			if s.m.exists {
				rows++
			}
			for _, v := range s.m.versions {
				if !v.destroyed {
					rows++
				}
			}
		}
		if got := countRows(t, store); got != rows {
			t.Fatalf("%d rows are stored, the model has %d", got, rows)
		}
	})
}

func countRows(t interface{ Fatal(...any) }, store storage.Engine) int {
	n := 0
	err := store.View(context.Background(), func(r storage.Reader) error {
		return storage.All(r, "", func(storage.Entry) error {
			n++
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
