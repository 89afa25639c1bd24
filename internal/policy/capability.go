package policy

import (
	"slices"
	"strings"
)

// Capability is one thing a rule may allow, or a set of them.
type Capability uint16

// The capabilities. Why is Coffer's own: to be told why a request was denied.
// Scan is OpenBao's. Deny takes everything away whatever else is granted.
const (
	Create Capability = 1 << iota
	Read
	Update
	Delete
	List
	Patch
	Sudo
	Deny
	Subscribe
	Recover
	Why
	Scan
)

// everything is what root holds.
const everything = Create | Read | Update | Delete | List | Patch | Sudo | Subscribe | Recover | Why | Scan

// The words of the language, sorted, as sys/capabilities answers them.
var words = []struct {
	word string
	bit  Capability
}{
	{"create", Create}, {"delete", Delete}, {"deny", Deny}, {"list", List}, {"patch", Patch},
	{"read", Read}, {"recover", Recover}, {"scan", Scan}, {"subscribe", Subscribe},
	{"sudo", Sudo}, {"update", Update}, {"why", Why},
}

// Words returns the set in Vault's words, sorted.
func (c Capability) Words() []string {
	var out []string
	for _, w := range words {
		if c&w.bit != 0 {
			out = append(out, w.word)
		}
	}
	return out
}

// String returns the set in Vault's words, sorted, joined by commas; the empty
// set is "none".
func (c Capability) String() string {
	if c == 0 {
		return "none"
	}
	return strings.Join(c.Words(), ", ")
}

// Has reports whether c holds all of want, which holds something, and no deny.
func (c Capability) Has(want Capability) bool {
	return c&Deny == 0 && want != 0 && c&want == want
}

// CapabilityOf returns the capability of a word of the language.
func CapabilityOf(word string) (Capability, bool) {
	i := slices.IndexFunc(words, func(w struct {
		word string
		bit  Capability
	}) bool {
		return w.word == word
	})
	if i < 0 {
		return 0, false
	}
	return words[i].bit, true
}

// shorthand is the old way to grant: policy = "read".
func shorthand(word string) (Capability, bool) {
	switch word {
	case "deny":
		return Deny, true
	case "read":
		return Read | List, true
	case "write":
		return Create | Read | Update | Delete | List, true
	case "sudo":
		return Create | Read | Update | Delete | List | Sudo, true
	}
	return 0, false
}
