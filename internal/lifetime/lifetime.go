// Package lifetime works out how long what is granted lives: tokens and leases,
// by what was asked for, what a role allows, and the defaults and bounds of the
// mount and the server. It keeps nothing.
package lifetime

import (
	"fmt"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// Terms are what decides how long something lives. Zero values say nothing.
type Terms struct {
	TTL         time.Duration `json:"ttl,omitempty"`          // asked for, by the request, the role or the user
	MaxTTL      time.Duration `json:"max_ttl,omitempty"`      // of the role or the user
	ExplicitMax time.Duration `json:"explicit_max,omitempty"` // from creation on; later configuration cannot extend it
	Period      time.Duration `json:"period,omitempty"`       // each renewal starts this long anew
	// MountDefault and MountMax are those of the mount that grants it; 0 is the
	// server's.
	MountDefault time.Duration `json:"mount_default,omitempty"`
	MountMax     time.Duration `json:"mount_max,omitempty"`
}

// Server returns the server's default and greatest lifetime.
type Server func() (defaultTTL, maxTTL time.Duration)

// Left is how long something lives from now on, at most as its terms allow
// counted from its creation, and the warnings that its client is shown.
// increment is what a renewal asks for, 0 for a creation. Past what the terms
// allow it is a fault.Invalid.
func (t Terms) Left(server Server, increment time.Duration, created, now time.Time) (time.Duration, []string, error) {
	def, mountMax := server()
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
			return 0, nil, fault.New(fault.Invalid, "past the max TTL, cannot renew")
		}
		if ttl > left {
			warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", ttl, left.Round(time.Second)))
			ttl = left
		}
	}
	return ttl, warnings, nil
}
