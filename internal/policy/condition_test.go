package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// known are facts that conditions of the tests ask about.
func known(change func(*Facts)) func() *Facts {
	return func() *Facts {
		f := &Facts{
			Time: time.Date(2026, 11, 24, 13, 30, 0, 0, time.UTC), Remote: netip.MustParseAddr("::ffff:10.1.2.3"),
			Parameters: []string{"data"}, DisplayName: "userpass-ada", TokenType: "service", Policies: []string{"default", "team"},
			EntityID: "e1", EntityName: "ada", Metadata: map[string]string{"team": "web"}, Groups: []string{"oncall"},
		}
		if change != nil {
			change(f)
		}
		return f
	}
}

func rule(path, capabilities, condition string) string {
	return fmt.Sprintf("path %q {\n  capabilities = [%s]\n  condition = %q\n}\n", path, capabilities, condition)
}

func TestConditions(t *testing.T) {
	for condition, want := range map[string]bool{
		`true`: true, `false`: false,
		`in_cidr(request.remote_address, "10.0.0.0/8")`:                                     true,
		`in_cidr(request.remote_address, "10.1.2.99/24")`:                                   true,
		`in_cidr(request.remote_address, "192.168.0.0/16")`:                                 false,
		`in_cidr(request.remote_address, "2001:db8::/32")`:                                  false,
		`now.getHours("Europe/Berlin") == 14 && now.getDayOfWeek("Europe/Berlin") == 2`:     true,
		`now < timestamp("2026-12-01T00:00:00Z")`:                                           true,
		`"oncall" in identity.groups`:                                                       true,
		`"team" in identity.policies && !("root" in identity.policies)`:                     true,
		`identity.entity.metadata.team == "web"`:                                            true,
		`identity.entity.name == "bob"`:                                                     false,
		`request.operation == "read" && request.path.startsWith("secret/")`:                 true,
		`request.wrap_ttl > duration("0s") && request.wrap_ttl <= duration("5m")`:           false,
		`request.parameters.all(p, p in ["data", "options"])`:                               true,
		`request.path.split("/")[1] == identity.entity.metadata.team`:                       true,
		`has(identity.entity.metadata.floor)`:                                               false,
		`!has(identity.entity.metadata.floor) || identity.entity.metadata.floor == "2"`:     true,
		`identity.token_type == "service" && identity.display_name.startsWith("userpass-")`: true,
	} {
		acl := Compile(mustParse(t, "p", rule("secret/*", `"read"`, condition)))
		ask := Request{Path: "secret/web/db", Need: Read, Facts: known(nil)}
		if d := acl.Check(ask); d.Allowed != want || !want && !strings.Contains(d.Missing, "is not met") {
			t.Errorf("%s: %v, %s", condition, d.Allowed, d.Missing)
		}
		if acl.Allows(ask) != want {
			t.Errorf("%s: Allows says otherwise", condition)
		}
	}
}

// What cannot be told allows nothing, and denies.
func TestConditionsThatCannotBeTold(t *testing.T) {
	for _, condition := range []string{
		`identity.entity.metadata.floor == "2"`, `in_cidr(request.remote_address, "10.0.0.0")`, `in_cidr("nowhere", "10.0.0.0/8")`,
		`1 / (size(identity.groups) - 1) == 1`, `int(identity.entity.name) == 1`, `in_cidr("10.1.2.3", "::ffff:10.0.0.0/64")`,
		`now.getHours("Nowhere/Atlantis") == 1`,
	} {
		allow := Compile(mustParse(t, "p", rule("a", `"read"`, condition)))
		d := allow.Check(Request{Path: "a", Need: Read, Facts: known(nil)})
		if d.Allowed || !strings.Contains(d.Missing, "cannot be told, so it denies: ") {
			t.Errorf("%s allows, or does not say why not: %+v", condition, d)
		}
		deny := Compile(mustParse(t, "p", rule("a", `"deny"`, condition)), mustParse(t, "q", `path "a" { capabilities = ["read"] }`))
		d = deny.Check(Request{Path: "a", Need: Read, Facts: known(nil)})
		if d.Allowed || !strings.Contains(d.Missing, "so it denies") {
			t.Errorf("%s does not deny, or does not say why: %+v", condition, d)
		}
	}
	// Nothing is known where nobody tells.
	if Compile(mustParse(t, "p", rule("a", `"read"`, "true"))).Allows(Request{Path: "a", Need: Read}) {
		t.Error("a condition is met where nothing is known")
	}
}

func TestConditionsAmongOtherRules(t *testing.T) {
	const yes, no = "true", "false"
	for _, c := range []struct {
		name  string
		rules string
		want  bool
	}{
		{"two of a path add up", rule("a", `"read"`, no) + rule("a", `"read"`, yes), true},
		{"one without is enough", rule("a", `"read"`, no) + `path "a" { capabilities = ["read"] }`, true},
		{"one that cannot be told denies, whatever there is besides", rule("a", `"read"`, `identity.entity.metadata.none == ""`) + `path "a" { capabilities = ["read"] }`, false},
		{"a deny that is met", rule("a", `"deny"`, yes) + `path "a" { capabilities = ["read"] }`, false},
		{"a deny that is not", rule("a", `"deny"`, no) + `path "a" { capabilities = ["read"] }`, true},
		{"a deny without wins over all", `path "a" { capabilities = ["deny"] }` + rule("a", `"read"`, yes), false},
		{"and before it, too", rule("a", `"read"`, yes) + `path "a" { capabilities = ["deny"] }`, false},
		{"nothing less specific takes its place", rule("a", `"read"`, no) + `path "*" { capabilities = ["read"] }`, false},
		{"nor that of a deny that is not met", rule("a", `"deny"`, no) + `path "*" { capabilities = ["read"] }`, false},
		{"another capability", rule("a", `"list"`, yes), false},
		{"what is more specific decides", rule("*", `"read"`, no) + `path "a" { capabilities = ["read"] }`, true},
	} {
		acl := Compile(mustParse(t, "p", c.rules))
		if d := acl.Check(Request{Path: "a", Need: Read, Facts: known(nil)}); d.Allowed != c.want {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	// Of the two spellings each has its own condition.
	acl := Compile(mustParse(t, "p", rule("secret/data/app/*", `"read"`, no)+rule("secret/app/*", `"read"`, yes)))
	if !acl.Allows(Request{Path: "secret/data/app/db", Plain: "secret/app/db", Need: Read, Facts: known(nil)}) {
		t.Error("the plain spelling's condition is met, and it is denied")
	}
	// Parameters and wrapping of a rule that does not count do not bound.
	acl = Compile(mustParse(t, "p", `path "a" { capabilities = ["update"] }
path "a" {
  capabilities = ["update"]
  condition = "false"
  required_parameters = ["reason"]
}`))
	if !acl.Allows(Request{Path: "a", Need: Update, Facts: known(nil)}) {
		t.Error("the bounds of a rule that does not count hold")
	}
}

func TestWhatConditionsCouldGrantIsShown(t *testing.T) {
	acl := Compile(mustParse(t, "p", rule("secret/*", `"read"`, "false")+rule("other/*", `"deny"`, "false")))
	if got := strings.Join(acl.Capabilities("secret/x", ""), " "); got != "read" {
		t.Errorf("capabilities are %s", got)
	}
	if !acl.AnyBelow("secret/") || acl.AnyBelow("other/") {
		t.Error("what could be granted is not shown, or what never is, is")
	}
	lines := strings.Join(acl.Explain(Request{Path: "secret/x", Need: Read, Facts: known(nil)}).Lines(), "\n")
	if !strings.Contains(lines, "if false") || !strings.Contains(lines, "the condition of rule secret/* of policy p is not met") {
		t.Errorf("explained: %s", lines)
	}
}

func TestWhatIsNoConditionIsRefused(t *testing.T) {
	deep := strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200)
	for _, condition := range []string{
		"", "1", `"yes"`, "identity", "nothing == 1", "true &&", "in_cidr(1, 2)", "now == 1", "size(request.path)", deep,
		"x.y(", "\x00", `request.remoteadress == "x"`, `identity.groups == "oncall"`, "identity.entity.id", `!has(identity.grups)`, `request.path.matches("a*")`, strings.Repeat("a", MaxCondition+1), `"` + strings.Repeat("a", MaxCondition) + `" == ""`,
	} {
		_, err := Parse("p", rule("a", `"read"`, condition))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "condition") && condition != "\x00" {
			t.Errorf("%.40q: %v", condition, err)
		}
	}
	long := `request.path != "` + strings.Repeat("a", MaxCondition-len(`request.path != ""`)) + `"`
	if _, err := Parse("p", rule("a", `"read"`, long)); err != nil || len(long) != MaxCondition {
		t.Errorf("at the limit of %d: %v", len(long), err)
	}
	if _, err := Parse("p", `{"path": {"a": {"capabilities": ["read"], "condition": "identity.entity.name == \"ada\""}}}`); err != nil {
		t.Errorf("in JSON: %v", err)
	}
	text := rule("a", `"read"`, `identity.entity.name == "ada"`)
	out, err := Format(text)
	if err != nil || !strings.Contains(out, "condition") {
		t.Errorf("formatted: %s %v", out, err)
	}
}

// grows nests replacements, each of which makes a text longer by its own length.
func grows(times int, text string) string {
	for range times {
		text += `.replace("", "` + strings.Repeat("b", 40) + `")`
	}
	return text
}

// Many conditions of one path are one decision's work.
func TestManyConditionsEnd(t *testing.T) {
	var text strings.Builder
	for i := range 3000 {
		text.WriteString(rule("*", `"read"`, fmt.Sprintf("identity.policies.exists(p, p == \"%d\")", i)))
	}
	acl := Compile(mustParse(t, "p", text.String()))
	begun := time.Now()
	d := acl.Check(Request{Path: "a", Need: Read, Facts: known(nil)})
	if took := time.Since(begun); d.Allowed || took > time.Second || len(d.Missing) > 2000 {
		t.Errorf("%v after %v, %d bytes of why", d.Allowed, took, len(d.Missing))
	}
}

// Networks of either family, however they are written.
func TestInCIDR(t *testing.T) {
	for _, c := range []struct {
		address, network string
		want             bool
	}{
		{"fe80::1%eth0", "fe80::/10", true}, {"10.1.2.3", "::ffff:10.0.0.0/104", true}, {"::ffff:10.1.2.3", "10.0.0.0/8", true},
		{"10.1.2.3", "11.0.0.0/8", false}, {"2001:db8::1", "2001:db8::/32", true}, {"10.1.2.3", "::/0", false},
	} {
		acl := Compile(mustParse(t, "p", rule("a", `"read"`, fmt.Sprintf("in_cidr(%q, %q)", c.address, c.network))))
		if got := acl.Allows(Request{Path: "a", Need: Read, Facts: known(nil)}); got != c.want {
			t.Errorf("%s in %s: %v", c.address, c.network, got)
		}
	}
}

// However an expression tries, it ends soon, and in a refusal.
func TestConditionsEnd(t *testing.T) {
	big := make([]string, 5000)
	for i := range big {
		big[i] = fmt.Sprint("policy-", i)
	}
	for _, condition := range []string{
		`identity.policies.all(a, identity.policies.all(b, identity.policies.all(c, a + b + c != "")))`,
		`identity.policies.map(a, identity.policies.map(b, a + b)).size() > 0`,
		grows(6, `"`+strings.Repeat("b", 20)+`"`) + `.size() > 0`,
		grows(6, `request.path`) + `.size() > 0`,
		`identity.policies.all(p, p.split("").join(request.path).upperAscii() != "")`,
	} {
		acl := Compile(mustParse(t, "p", rule("*", `"read"`, condition)))
		begun := time.Now()
		d := acl.Check(Request{Path: strings.Repeat("a", 500), Need: Read, Facts: known(func(f *Facts) { f.Policies = big })})
		if took := time.Since(begun); d.Allowed || took > time.Second {
			t.Errorf("%s: allowed %v after %v", condition, d.Allowed, took)
		}
	}
}

// FuzzCondition: whatever the expression, it is refused or evaluated, in bounded time
// and without a panic, and the two ways to ask agree.
func FuzzCondition(f *testing.F) {
	for _, text := range []string{
		"true", `in_cidr(request.remote_address, "10.0.0.0/8")`, `now.getHours("Europe/Berlin") < 17`, `identity.groups.exists(g, g == "x")`,
		`identity.entity.metadata["a"] == "b"`, `[1,2,3].map(x, x * 9223372036854775807).size() > 2`, `"a".split("")`, `timestamp("x") > now`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := compileCondition(text)
		if err != nil {
			return
		}
		begun := time.Now()
		first, err := c.holds(&Request{Path: "a", Need: Read, Facts: known(nil)})
		if took := time.Since(begun); took > 2*time.Second {
			t.Fatalf("it takes %v", took)
		}
		r := &Rule{Path: "a", Capabilities: Read, Condition: text, when: c}
		acl := Compile(&Policy{Name: "p", Rules: []Rule{*r}})
		if allowed := acl.Allows(Request{Path: "a", Need: Read, Facts: known(nil)}); err == nil && allowed != first {
			t.Fatalf("%v and %v", first, allowed)
		}
	})
}

func BenchmarkCondition(b *testing.B) {
	acl := Compile(mustParse(b, "p", rule("secret/*", `"read"`, `in_cidr(request.remote_address, "10.0.0.0/8") && "oncall" in identity.groups`)))
	b.ReportAllocs()
	for b.Loop() {
		if !acl.Allows(Request{Path: "secret/x", Need: Read, Facts: known(nil)}) {
			b.Fatal("denied")
		}
	}
}
