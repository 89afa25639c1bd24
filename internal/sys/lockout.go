package sys

import (
	"maps"
	"strconv"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/mount"
	"github.com/cofferhq/coffer/internal/wire"
)

// UserLockout says when failed logins lock a user, as Vault's clients send it.
// It is kept as options of the mount, by which the method reads it.
type UserLockout struct {
	Threshold    *wire.Int     `json:"lockout_threshold" doc:"Failures in a row that lock a user; 0 never locks."`
	Duration     wire.Lifetime `json:"lockout_duration" doc:"How long a user stays locked."`
	CounterReset wire.Lifetime `json:"lockout_counter_reset_duration" doc:"How long after a failure it counts no more."`
	Disable      *wire.Bool    `json:"lockout_disable" doc:"true locks nobody."`
}

// The mount's options that a lockout is kept in.
const (
	lockThreshold = "lockout_threshold"
	lockDuration  = "lockout_duration"
	lockReset     = "lockout_counter_reset"
	lockDisable   = "lockout_disable"
)

// locks reports whether methods of a type lock users.
func locks(kind string) bool { return kind == "userpass" || kind == "ldap" }

// into returns the options of a mount of the type with what is given in them.
func (u *UserLockout) into(kind string, options map[string]string) (map[string]string, error) {
	if u == nil {
		return options, nil
	}
	if !locks(kind) {
		return nil, fault.New(fault.Invalid, "tuning of user lockout configuration for auth type %q not allowed", kind)
	}
	if options = maps.Clone(options); options == nil {
		options = map[string]string{}
	}
	if u.Threshold != nil {
		options[lockThreshold] = strconv.FormatInt(int64(*u.Threshold), 10)
	}
	for name, d := range map[string]wire.Lifetime{lockDuration: u.Duration, lockReset: u.CounterReset} {
		if d.Standard {
			delete(options, name)
		} else if d.Given {
			options[name] = d.TTL.String()
		}
	}
	if u.Disable != nil {
		options[lockDisable] = strconv.FormatBool(bool(*u.Disable))
	}
	return options, nil
}

// LockoutInfo is a mount's lockout as Vault's clients read it. What was not
// set is left out: the method's own value is in force.
type LockoutInfo struct {
	Threshold    *int64        `json:"user_lockout_threshold,omitempty"`
	Duration     *wire.Seconds `json:"user_lockout_duration,omitempty"`
	CounterReset *wire.Seconds `json:"user_lockout_counter_reset_duration,omitempty"`
	Disable      *bool         `json:"user_lockout_disable,omitempty"`
}

// lockoutInfo reads a mount's lockout back from its options; nil when there is
// none.
func lockoutInfo(e *mount.Entry) *LockoutInfo {
	var out LockoutInfo
	if !locks(e.Type) {
		return nil
	}
	if n, err := strconv.ParseInt(e.Options[lockThreshold], 10, 64); err == nil {
		out.Threshold = &n
	}
	if v, err := strconv.ParseBool(e.Options[lockDisable]); err == nil {
		out.Disable = &v
	}
	for name, dst := range map[string]**wire.Seconds{lockDuration: &out.Duration, lockReset: &out.CounterReset} {
		if d, err := wire.ParseDuration(e.Options[name]); err == nil && e.Options[name] != "" {
			*dst = (*wire.Seconds)(&d)
		}
	}
	if out == (LockoutInfo{}) {
		return nil
	}
	return &out
}
