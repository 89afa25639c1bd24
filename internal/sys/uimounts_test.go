package sys_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/cofferhq/coffer/internal/gateway"
)

// TestNobodyIsShownWhatIsListedForAll is how a person's console finds the ways to
// log in before there is a token.
func TestNobodyIsShownWhatIsListedForAll(t *testing.T) {
	s := ready(t)
	in := func(namespace string) func(*gateway.Request) {
		return func(r *gateway.Request) { r.Namespace = namespace }
	}
	s.must(t, 204, s.root, "POST", "sys/auth/people", `{"type":"userpass","description":"all of us"}`)
	s.must(t, 204, s.root, "POST", "sys/auth/jobs", `{"type":"approle"}`)
	s.must(t, 204, s.root, "POST", "sys/mounts/notices", `{"type":"kv","options":{"version":"2"}}`)
	ask := func() map[string]any {
		return s.must(t, 200, "", "GET", "sys/internal/ui/mounts", "")["data"].(map[string]any)
	}
	if out := ask(); fmt.Sprint(out) != "map[auth:map[] secret:map[]]" {
		t.Errorf("nothing is listed for all, and nobody is shown %v", out)
	}
	s.must(t, 204, s.root, "POST", "sys/auth/people/tune", `{"listing_visibility":"unauth"}`)
	s.must(t, 204, s.root, "POST", "sys/mounts/notices/tune", `{"listing_visibility":"unauth"}`)
	if out := ask(); fmt.Sprint(out) != "map[auth:map[people/:map[description:all of us options:map[] type:userpass]] secret:map[notices/:map[description: options:map[version:2] type:kv]]]" &&
		fmt.Sprint(out) != "map[auth:map[people/:map[description:all of us options:<nil> type:userpass]] secret:map[notices/:map[description: options:map[version:2] type:kv]]]" {
		t.Errorf("%v", out)
	}
	// With a token the same mounts are told whole, with their accessors.
	reader := s.user(t, readApp)
	whole := s.must(t, 200, reader, "GET", "sys/internal/ui/mounts", "")["data"].(map[string]any)["auth"].(map[string]any)
	if people, _ := whole["people/"].(map[string]any); people["accessor"] == nil || people["type"] != "userpass" || whole["jobs/"] != nil {
		t.Errorf("%v", whole)
	}
	s.must(t, 403, "hvs.nonsense", "GET", "sys/internal/ui/mounts", "")
	s.must(t, 403, "", "GET", "sys/internal/ui/mounts/people/x", "")
	s.must(t, 403, "", "GET", "sys/mounts", "")

	// A namespace shows its own, and one that shows nothing looks like none.
	s.must(t, 200, s.root, "POST", "sys/namespaces/team", "")
	s.must(t, 200, s.root, "POST", "sys/namespaces/quiet", "")
	s.must(t, 204, s.root, "POST", "sys/auth/badge", `{"type":"userpass","config":{"listing_visibility":"unauth"}}`, in("team"))
	out := s.must(t, 200, "", "GET", "sys/internal/ui/mounts", "", in("team"))["data"].(map[string]any)
	if got := keysOf(out["auth"].(map[string]any)); !slices.Equal(got, []string{"badge/"}) || len(out["secret"].(map[string]any)) != 0 {
		t.Errorf("%v", out)
	}
	refusal := func(namespace string) string {
		status, _, raw := s.ask(t, "", "GET", "sys/internal/ui/mounts", "", in(namespace))
		return fmt.Sprint(status, " ", regexp.MustCompile(`"request_id":"[^"]*"`).ReplaceAllString(string(raw), ""))
	}
	none := refusal("none")
	for _, namespace := range []string{"quiet", "team/none"} {
		if got := refusal(namespace); got != none {
			t.Errorf("%s is told from a namespace that is not there: %s, %s", namespace, got, none)
		}
	}
	s.must(t, 200, s.root, "POST", "sys/namespaces/api-lock/lock/team", "")
	if got := refusal("team"); got != none {
		t.Errorf("a locked namespace: %s", got)
	}
	s.must(t, 503, s.root, "GET", "sys/internal/ui/mounts", "", in("team"))
}
