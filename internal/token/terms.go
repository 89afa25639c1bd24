package token

import (
	"fmt"
	"time"
)

// Terms are what decides how long a token lives. Zero values say nothing.
type Terms struct {
	TTL         time.Duration `json:"ttl,omitempty"`          // asked for, by the request, the role or the user
	MaxTTL      time.Duration `json:"max_ttl,omitempty"`      // of the role or the user
	ExplicitMax time.Duration `json:"explicit_max,omitempty"` // from creation on; later configuration cannot extend it
	Period      time.Duration `json:"period,omitempty"`       // each renewal starts this long anew
	// MountDefault and MountMax are those of the mount that grants the token; 0
	// is the server's.
	MountDefault time.Duration `json:"mount_default,omitempty"`
	MountMax     time.Duration `json:"mount_max,omitempty"`
}

// lifetime is how long a token lives from now on, at most as its terms allow
// counted from its creation, and the warnings that its client is shown.
// increment is what a renewal asks for, 0 for a creation.
func (s *Store) lifetime(t Terms, increment time.Duration, created, now time.Time) (time.Duration, []string, error) {
	def, mountMax := s.defaults()
	if t.MountMax > 0 {
		mountMax = t.MountMax
	}
	if t.MountDefault > 0 {
		def = t.MountDefault
	}
	def = min(def, mountMax)
	var warnings []string
	var ttl, limit time.Duration // limit counts from creation; 0 is none
	if t.Period > 0 {
		ttl, limit = t.Period, t.ExplicitMax
		if ttl > mountMax {
			warnings = append(warnings, fmt.Sprintf("period of %q exceeded the effective max_ttl of %q; period value is capped accordingly", ttl, mountMax))
			ttl = mountMax
		}
	} else {
		limit = mountMax
		if t.MaxTTL > 0 {
			limit = min(limit, t.MaxTTL)
		}
		if t.ExplicitMax > 0 {
			limit = min(limit, t.ExplicitMax)
		}
		switch {
		case increment > 0:
			ttl = increment
		case t.TTL > 0:
			ttl = t.TTL
		default:
			ttl = def
		}
	}
	if limit > 0 {
		left := created.Add(limit).Sub(now)
		if left <= 0 {
			return 0, nil, invalid("past the max TTL, cannot renew")
		}
		if ttl > left {
			warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", ttl, left.Round(time.Second)))
			ttl = left
		}
	}
	return ttl, warnings, nil
}

// Lifetimes are the server's default and greatest lifetime.
func (s *Store) Lifetimes() (defaultTTL, maxTTL time.Duration) { return s.defaults() }
