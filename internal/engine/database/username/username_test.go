package username

import (
	"regexp"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/fault"
)

func TestMake(t *testing.T) {
	for text, want := range map[string]string{
		`{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}`: `^v-oidc-joe-reader-[A-Za-z0-9]{20}-\d{10}$`,
		`{{.RoleName | uppercase}}_{{random 4 | lowercase}}`:                                                                      `^READER_[a-z0-9]{4}$`,
		`{{.DisplayName | replace "-" "." }}-{{uuid}}`:                                                                            `^oidc\.joe\.example\.com-[0-9a-f-]{36}$`,
		`{{sha256 .RoleName | truncate 6}}-{{random 3}}`:                                                                          `^[0-9a-f]{6}-[A-Za-z0-9]{3}$`,
		`{{truncate_sha256 12 .DisplayName}}{{random 5}}`:                                                                         `^oidc[0-9a-f]{8}[A-Za-z0-9]{5}$`,
		`{{timestamp "2006"}}-{{unix_time_millis}}-{{random 9}}`:                                                                  `^\d{4}-\d{13}-[A-Za-z0-9]{9}$`,
		`{{if eq .RoleName "reader"}}r{{else}}x{{end}}{{random 9}}`:                                                               `^r[A-Za-z0-9]{9}$`,
		`{{base64 .RoleName | truncate 4}}{{random 9}}`:                                                                           `^cmVh[A-Za-z0-9]{9}$`,
	} {
		tmpl, err := Parse(text, 64)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		name, err := tmpl.Make(For{DisplayName: "oidc-joe@example.com", RoleName: "reader"})
		if err != nil || !regexp.MustCompile(want).MatchString(name) {
			t.Errorf("%s: %q, %v", text, name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	bomb := `{{"` + strings.Repeat("a", 50) + `"` + strings.Repeat(` | replace "a" "`+strings.Repeat("a", 60)+`"`, 20) + `}}`
	for text, says := range map[string]string{
		"":                                     "empty name",
		"{{":                                   "cannot be read",
		"always-the-same":                      "same name twice",
		"{{.Nobody}}{{random 4}}":              "username_template fails",
		"{{random 0}}":                         "fails",
		"{{random 513}}":                       "fails",
		"{{random 20}} {{random 2}}":           "other characters",
		"{{random 65}}":                        "65 bytes",
		"{{range 1000000000}}{{end}}x":         "range",
		"{{if true}}{{range 9}}{{end}}{{end}}": "range",
		`{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`: "template",
		`{{js "x"}}{{random 4}}`:                                "no such function",
		`{{call .RoleName}}`:                                    "fails",
		`{{printf "%99999d" 1}}{{random 4}}`:                    "three digits",
		bomb:                                                    "more than 4096 bytes",
		strings.Repeat("a", MaxTemplate+1):                      "more than 2048",
	} {
		if _, err := Parse(text, 64); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}

// FuzzParse: whatever a template says, what it makes is a name.
func FuzzParse(f *testing.F) {
	f.Add(`{{ printf "v-%s" (random 20) | truncate 32 }}`, "token")
	f.Add(`{{.DisplayName}}{{uuid}}`, `"; DROP ROLE x; --`)
	f.Add(`{{with .RoleName}}{{.}}{{end}}{{random 3}}`, "a b")
	f.Fuzz(func(t *testing.T, text, display string) {
		tmpl, err := Parse(text, 63)
		if err != nil {
			return
		}
		name, err := tmpl.Make(For{DisplayName: display, RoleName: "r"})
		if err == nil && (len(name) > 63 || !allowed.MatchString(name)) {
			t.Errorf("%q for %q makes %q", text, display, name)
		}
	})
}
