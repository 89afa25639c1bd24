package plugin

import (
	"slices"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/fault"
)

var (
	pg = Dialect{Dollar: true}
	my = Dialect{Backslash: true, Backtick: true}
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		d    Dialect
		text string
		want []string
	}{
		{pg, ` a ; b;; `, []string{"a", "b"}},
		{pg, `a 'x;y' "p;q"; b`, []string{`a 'x;y' "p;q"`, "b"}},
		{pg, `a 'it''s; ok'; b`, []string{`a 'it''s; ok'`, "b"}},
		{pg, `DO $$ BEGIN x; y; END $$; b`, []string{"DO $$ BEGIN x; y; END $$", "b"}},
		{pg, `DO $body$ $$;$$ $body$; b`, []string{"DO $body$ $$;$$ $body$", "b"}},
		{pg, "a -- not; this\n; b", []string{"a -- not; this", "b"}},
		{pg, `a /* not; this */ ; b`, []string{"a /* not; this */", "b"}},
		{pg, `a 'x\'; b`, []string{`a 'x\'`, "b"}},
		{my, `a 'x\'; b'; c`, []string{`a 'x\'; b'`, "c"}},
		{my, "a `x;y`; b", []string{"a `x;y`", "b"}},
	} {
		got, err := c.d.Split([]string{c.text})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", c.text, got, err)
		}
	}
	for _, bad := range []string{`a 'x`, `a "x`, `a /* x`, `DO $$ x`} {
		if _, err := pg.Split([]string{bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := pg.Split([]string{strings.Repeat("a;", MaxStatements)}); err != nil {
		t.Errorf("the most statements: %v", err)
	}
	if _, err := pg.Split([]string{strings.Repeat("a;", MaxStatements+1)}); !fault.Is(err, fault.Invalid) {
		t.Errorf("one more: %v", err)
	}
	if _, err := pg.Split([]string{strings.Repeat("a", MaxStatement)}); err != nil {
		t.Errorf("the most bytes: %v", err)
	}
	if _, err := pg.Split([]string{strings.Repeat("a", MaxStatement), "b"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("one more: %v", err)
	}
}

func TestRender(t *testing.T) {
	v := Values{"name": `a"b'c\d`, "ok": "x_1"}
	for _, c := range []struct {
		d          Dialect
		text, want string
	}{
		{pg, `"{{name}}" '{{ name }}' {{ok}}`, `"a""b'c\d" 'a"b''c\d' x_1`},
		{my, `'{{name}}' "{{name}}"` + " `{{name}}`", `'a"b''c\\d' "a""b'c\\d"` + " `a\"b'c\\d`"},
		{pg, "-- {{name}}\n{{ok}}", "-- \nx_1"},
		{pg, `$$ {{ok}} $$`, `$$ x_1 $$`},
		{pg, `nothing`, `nothing`},
	} {
		if got, err := c.d.Render(c.text, v); err != nil || got != c.want {
			t.Errorf("%s: %s, %v", c.text, got, err)
		}
	}
	for _, bad := range []string{`{{name}}`, `$$ {{name}} $$`, `'{{other}}'`} {
		if got, err := pg.Render(bad, v); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %s, %v", bad, got, err)
		}
	}
	if got, err := pg.Render(`'{{v}}'`, Values{"v": "a\x00b"}); err == nil {
		t.Errorf("a NUL: %q", got)
	}
}

// FuzzRender: whatever a value holds, it stays where it was put: the statement has
// as many parts as with a plain value.
func FuzzRender(f *testing.F) {
	f.Add(`CREATE ROLE "{{name}}" PASSWORD '{{name}}'; GRANT x TO "{{name}}"`, `a'; DROP TABLE x; --`)
	f.Add("x `{{name}}` -- {{name}}\n; y", "a`; b")
	f.Add(`DO $$ '{{name}}' $$; b`, `$$; c`)
	f.Add(`'\'{{name}}'; b`, `\'; c`)
	f.Fuzz(func(t *testing.T, text, value string) {
		for _, d := range []Dialect{pg, my} {
			plain, err := d.Render(text, Values{"name": "x"})
			if err != nil {
				continue
			}
			want, err := d.Split([]string{plain})
			if err != nil {
				continue
			}
			hostile, err := d.Render(text, Values{"name": value})
			if err != nil {
				continue
			}
			got, err := d.Split([]string{hostile})
			if len(hostile) > MaxStatement {
				continue
			}
			if err != nil || len(got) != len(want) {
				t.Errorf("%q with %q: %q, %v; with a plain value %q", text, value, got, err, want)
			}
		}
	})
}
