package database

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/database/plugin"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var staticRoutes = []route.Route[*Engine]{
	route.New("LIST", "static-roles", "List the static roles.", (*Engine).listStatics,
		route.Shows("static-roles", "", "")),
	route.New("GET", "static-roles/{name}", "Read a static role.", (*Engine).readStatic,
		route.Shows("static-roles/reports", "", "")),
	route.New("POST", "static-roles/{name}", "Take over an account that stays: its password is changed now, and by the clock.", (*Engine).writeStatic, route.ExistsBy((*Engine).staticExists),
		route.Shows("static-roles/reports", `{"db_name":"orders","username":"reports","rotation_period":"24h"}`, "")),
	route.New("DELETE", "static-roles/{name}", "Give an account up. It keeps its last password.", (*Engine).removeStatic,
		route.Shows("static-roles/reports", "", "")),
	route.New("GET", "static-creds/{name}", "Read the password of a static role as it is now.", (*Engine).staticCreds,
		route.Shows("static-creds/reports", "", "")),
	route.New("POST", "rotate-role/{name}", "Change the password of a static role now.", (*Engine).rotateRole,
		route.Shows("rotate-role/reports", "{}", "")),
}

// static is the row of a static role.
type static struct {
	DB       string       `json:"db_name"`
	Username string       `json:"username"`
	Rotation Statements   `json:"rotation_statements"`
	Period   wire.Seconds `json:"rotation_period,omitempty"`
	Schedule string       `json:"rotation_schedule,omitempty"`
	Window   wire.Seconds `json:"rotation_window,omitempty"`
	Config   *passwordBy  `json:"credential_config,omitempty"`
	Password string       `json:"password,omitempty"`
	// Pending is the next password: it is the password already, or Password still is.
	Pending string    `json:"pending,omitempty"`
	Rotated time.Time `json:"rotated,omitzero"`
}

// WriteStatic creates or changes a static role.
type WriteStatic struct {
	Named
	DB       *string         `json:"db_name" doc:"The connection."`
	Username *string         `json:"username" doc:"The account; it cannot be changed."`
	Rotation *Statements     `json:"rotation_statements" doc:"Statements that change the password; the plugin's own unless given."`
	Period   *wire.Seconds   `json:"rotation_period" doc:"How often the password is changed, 5s at least."`
	Schedule *string         `json:"rotation_schedule" doc:"When it is changed instead, as cron has it, in UTC: 0 3 * * SUN."`
	Window   *wire.Seconds   `json:"rotation_window" doc:"How long after a time of the schedule it may still be changed, 1h at least; without one, whenever it can be."`
	Config   *wire.StringMap `json:"credential_config" doc:"password_policy: the policy by which its passwords are made; the connection's unless given."`
	Type     string          `json:"credential_type" doc:"password, which is the only one."`
}

// ReadStatic is a static role in Vault's shape.
type ReadStatic struct {
	DB       string       `json:"db_name"`
	Username string       `json:"username"`
	Rotation Statements   `json:"rotation_statements"`
	Period   wire.Seconds `json:"rotation_period,omitempty"`
	Schedule string       `json:"rotation_schedule,omitempty"`
	Window   wire.Seconds `json:"rotation_window,omitempty"`
	Config   *passwordBy  `json:"credential_config,omitempty"`
	Type     string       `json:"credential_type"`
	Rotated  *time.Time   `json:"last_vault_rotation,omitempty"`
}

// StaticCreds is the password of a static role.
type StaticCreds struct {
	Username string       `json:"username"`
	Password wire.Secret  `json:"password"`
	Rotated  time.Time    `json:"last_vault_rotation"`
	Period   wire.Seconds `json:"rotation_period,omitempty"`
	Schedule string       `json:"rotation_schedule,omitempty"`
	Window   wire.Seconds `json:"rotation_window,omitempty"`
	TTL      int64        `json:"ttl"`
}

const (
	minPeriod = 5 * time.Second
	minWindow = time.Hour
)

func (in WriteStatic) apply(s *static) error {
	if in.Username != nil && s.Username != "" && *in.Username != s.Username {
		return fault.New(fault.Invalid, "cannot update static account username")
	}
	rows.Set(&s.DB, in.DB)
	rows.Set(&s.Username, in.Username)
	rows.Set(&s.Rotation, in.Rotation)
	rows.Set(&s.Window, in.Window)
	if in.Period != nil && *in.Period != 0 {
		s.Period, s.Schedule = *in.Period, ""
	}
	if in.Schedule != nil && *in.Schedule != "" {
		if in.Period != nil && *in.Period != 0 {
			return fault.New(fault.Invalid, "mutually exclusive fields rotation_period and rotation_schedule were both specified; only one of them can be provided")
		}
		s.Schedule, s.Period = *in.Schedule, 0
	}
	var err error
	if in.Config != nil {
		s.Config, err = passwordsBy(*in.Config)
	}
	switch {
	case err != nil:
		return err
	case s.DB == "":
		return fault.New(fault.Invalid, "database name is a required field")
	case s.Username == "":
		return fault.New(fault.Invalid, "username is a required field to create a static account")
	case in.Type != "" && in.Type != typePassword:
		return fault.New(fault.Invalid, "credential_type must be password")
	case s.Schedule == "" && s.Period == 0:
		return fault.New(fault.Invalid, "one of rotation_schedule or rotation_period must be provided to create a static account")
	case s.Schedule == "" && s.Period.Duration() < minPeriod:
		return fault.New(fault.Invalid, "rotation_period must be %d seconds or more", int(minPeriod.Seconds()))
	case s.Window != 0 && s.Schedule == "":
		return fault.New(fault.Invalid, "rotation_window goes with rotation_schedule")
	case s.Window != 0 && s.Window.Duration() < minWindow:
		return fault.New(fault.Invalid, "rotation_window must be %d seconds or more", int(minWindow.Seconds()))
	}
	_, err = s.next(time.Now())
	return err
}

// next is when the password is to be changed after a time.
func (s *static) next(after time.Time) (time.Time, error) {
	if s.Schedule == "" {
		return after.Add(s.Period.Duration()).UTC(), nil
	}
	when, err := cron.ParseStandard(s.Schedule)
	if err != nil || strings.Contains(s.Schedule, "TZ=") || strings.HasPrefix(s.Schedule, "@every") {
		return after, fault.New(fault.Invalid, "rotation_schedule %q is not of cron's five fields: minute, hour, day, month, day of the week", s.Schedule)
	}
	next := when.Next(after.UTC())
	if next.IsZero() {
		return after, fault.New(fault.Invalid, "rotation_schedule %q never comes", s.Schedule)
	}
	return next, nil
}

func (e *Engine) staticExists(ctx context.Context, in WriteStatic) (bool, error) {
	s, err := e.statics.Find(ctx, in.Name)
	return s != nil, err
}

func (e *Engine) readStatic(ctx context.Context, _ route.Caller, in Named) (ReadStatic, error) {
	s, err := e.static(ctx, in.Name)
	if err != nil {
		return ReadStatic{}, err
	}
	out := ReadStatic{DB: s.DB, Username: s.Username, Rotation: s.Rotation, Period: s.Period, Schedule: s.Schedule, Window: s.Window, Config: s.Config, Type: typePassword}
	if !s.Rotated.IsZero() {
		out.Rotated = &s.Rotated
	}
	return out, nil
}

// static returns a static role as it is now, or route.Missing.
func (e *Engine) static(ctx context.Context, name string) (*static, error) {
	s, err := e.statics.Find(ctx, name)
	if err == nil && s == nil {
		err = route.Missing()
	}
	return s, err
}

func (e *Engine) writeStatic(ctx context.Context, _ route.Caller, in WriteStatic) (out route.Empty, err error) {
	if err := checkName(in.Name); err != nil {
		return out, err
	}
	other, err := e.roles.Find(ctx, in.Name)
	if err != nil {
		return out, err
	}
	if other != nil {
		return out, fault.New(fault.Invalid, "Role and Static Role names must be unique")
	}
	fresh := false
	if _, err := e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		s, err := storage.Load[static](t, staticRows+in.Name)
		if err != nil {
			return err
		}
		if fresh = s == nil; fresh {
			s = &static{}
		}
		if err := in.apply(s); err != nil {
			return err
		}
		due := time.Now()
		if !fresh {
			if due, err = s.next(time.Now()); err != nil {
				return err
			}
		}
		if err := t.Schedule(task(in.Name), due.Add(soon)); err != nil {
			return err
		}
		return storage.Save(t, staticRows+in.Name, s)
	}); err != nil {
		return out, err
	}
	if !fresh {
		return out, nil
	}
	if err := e.rotate(ctx, in.Name, e.finish); err != nil {
		// The account was not taken over: there is no such role.
		_, gone := e.removeStatic(context.WithoutCancel(ctx), route.Caller{}, in.Named)
		return out, errors.Join(err, gone)
	}
	return out, nil
}

// soon is how long a request that changes a password has before a worker does.
const soon = 2 * callTimeout

// task is the task that changes the password of a static role.
func task(name string) string { return staticRows + name }

func (e *Engine) removeStatic(ctx context.Context, _ route.Caller, in Named) (route.Empty, error) {
	_, err := e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		if err := t.Cancel(task(in.Name)); err != nil {
			return err
		}
		return t.Delete(staticRows + in.Name)
	})
	return route.Empty{}, err
}

func (e *Engine) staticCreds(ctx context.Context, _ route.Caller, in Named) (StaticCreds, error) {
	s, err := e.statics.Lately(ctx, in.Name)
	if err != nil {
		return StaticCreds{}, err
	}
	if s == nil || s.Rotated.IsZero() {
		return StaticCreds{}, fault.New(fault.Invalid, "unknown role: %s", in.Name)
	}
	next, err := s.next(s.Rotated)
	if err != nil {
		return StaticCreds{}, err
	}
	return StaticCreds{
		Username: s.Username, Password: wire.Secret(s.Password), Rotated: s.Rotated, Period: s.Period, Schedule: s.Schedule, Window: s.Window,
		TTL: max(0, int64(time.Until(next).Seconds())),
	}, nil
}

func (e *Engine) rotateRole(ctx context.Context, _ route.Caller, in Named) (route.Empty, error) {
	if _, err := e.static(ctx, in.Name); err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, e.rotate(ctx, in.Name, e.finish)
}

// due changes the password of a static role whose time has come.
func (e *Engine) due(ctx context.Context, t engine.Task) error {
	name, ok := strings.CutPrefix(t.Name, staticRows)
	if !ok {
		return t.Update(ctx, func(t engine.TaskTxn) error { return t.Done() })
	}
	s, err := e.statics.Find(ctx, name)
	if err != nil {
		return err
	}
	if s == nil {
		return t.Update(ctx, func(t engine.TaskTxn) error { return t.Done() })
	}
	if s.Window > 0 && s.Pending == "" && time.Since(t.Due) > s.Window.Duration() {
		next, err := s.next(time.Now())
		if err != nil {
			return err
		}
		return t.Update(ctx, func(t engine.TaskTxn) error { return t.Again(next) })
	}
	return e.rotate(ctx, name, func(ctx context.Context, _ string, fn func(engine.Txn) (time.Time, error)) error {
		return t.Update(ctx, func(t engine.TaskTxn) error {
			next, err := fn(t)
			if err != nil {
				return err
			}
			if next.IsZero() {
				return t.Done()
			}
			return t.Again(next)
		})
	})
}

// finish commits what fn does to a static role, and when it is next due.
func (e *Engine) finish(ctx context.Context, name string, fn func(engine.Txn) (time.Time, error)) error {
	_, err := e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		next, err := fn(t)
		if err != nil {
			return err
		}
		if next.IsZero() {
			return t.Cancel(task(name))
		}
		return t.Schedule(task(name), next)
	})
	return err
}

// rotate changes the password of a static role. The next password is kept before it
// is set, and set again until the database has taken it: whatever dies in between,
// the one that it has is known.
func (e *Engine) rotate(ctx context.Context, name string, finish func(context.Context, string, func(engine.Txn) (time.Time, error)) error) error {
	s, err := e.static(ctx, name)
	if err != nil {
		return err
	}
	c, err := e.config(ctx, s.DB)
	if err != nil {
		return err
	}
	if !c.allows(name) {
		return fault.New(fault.Invalid, "%q is not an allowed role of the connection %q; name it in its allowed_roles", name, s.DB)
	}
	policy := c.Policy
	if s.Config != nil && s.Config.Policy != "" {
		policy = s.Config.Policy
	}
	made, err := e.env.Password(ctx, policy)
	if err != nil {
		return err
	}
	call, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	srv, c, err := e.server(call, s.DB)
	if err != nil {
		return err
	}
	pending := ""
	if err := e.statics.Change(ctx, name, func(s *static) error {
		if s.Username == "" {
			return route.Missing() // removed meanwhile
		}
		if s.Pending == "" {
			s.Pending = made.Reveal()
		}
		pending = s.Pending
		return nil
	}); err != nil {
		return err
	}
	if err := srv.SetPassword(call, plugin.Account{Name: s.Username, Password: pending}, s.Rotation); err != nil {
		return fault.New(kindOf(err), "the database did not change the password of %s: %s", s.Username, scrub(err, c, pending))
	}
	return finish(context.WithoutCancel(ctx), name, func(t engine.Txn) (next time.Time, err error) {
		s, err := storage.Load[static](t, staticRows+name)
		if err != nil || s == nil {
			return next, err
		}
		if s.Pending == pending {
			s.Password, s.Pending, s.Rotated = pending, "", time.Now().UTC()
		}
		if next, err = s.next(s.Rotated); err != nil {
			return next, err
		}
		return next, storage.Save(t, staticRows+name, s)
	})
}
