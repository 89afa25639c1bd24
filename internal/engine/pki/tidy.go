package pki

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var tidyRoutes = []route.Route[*Engine]{
	route.New("POST", "tidy", "Remove what expired, in the background.", (*Engine).tidy,
		route.Shows("tidy", `{"tidy_cert_store":true,"tidy_revoked_certs":true,"safety_buffer":"72h"}`, "")),
	route.New("GET", "tidy-status", "Read how the last removal of what expired went.", (*Engine).tidyStatus,
		route.Shows("tidy-status", "", "")),
	route.New("POST", "tidy-cancel", "Stop removing what expired.", (*Engine).tidyCancel,
		route.Shows("tidy-cancel", `{}`, "")),
	route.New("GET", "config/auto-tidy", "Read when what expired is removed by the clock.", (*Engine).readAutoTidy,
		route.Shows("config/auto-tidy", "", "")),
	route.New("POST", "config/auto-tidy", "Set when what expired is removed by the clock.", (*Engine).writeAutoTidy,
		route.Shows("config/auto-tidy", `{"enabled":true,"tidy_cert_store":true,"tidy_revoked_certs":true}`, "")),
}

const (
	tidyTask     = "tidy"
	autoTidyTask = "auto-tidy"
	tidyRow      = "tidy"
	autoTidyRow  = "config/auto-tidy"
)

// sweepOptions say what is removed.
type sweepOptions struct {
	Certs          bool         `json:"tidy_cert_store"`
	Revoked        bool         `json:"tidy_revoked_certs"`
	Associations   bool         `json:"tidy_revoked_cert_issuer_associations"`
	ExpiredIssuers bool         `json:"tidy_expired_issuers"`
	ACME           bool         `json:"tidy_acme"`
	Buffer         wire.Seconds `json:"safety_buffer"`
	IssuerBuffer   wire.Seconds `json:"issuer_safety_buffer"`
	ACMEBuffer     wire.Seconds `json:"acme_account_safety_buffer"`
	Pause          string       `json:"pause_duration"`
}

func standardSweep() sweepOptions {
	return sweepOptions{Buffer: wire.Seconds(72 * time.Hour), IssuerBuffer: wire.Seconds(365 * 24 * time.Hour), ACMEBuffer: wire.Seconds(720 * time.Hour), Pause: "0s"}
}

// Tidy says what is removed.
type Tidy struct {
	Certs          *wire.Bool    `json:"tidy_cert_store" doc:"Remove certificates that expired."`
	Revoked        *wire.Bool    `json:"tidy_revoked_certs" doc:"Remove certificates that expired from those that are revoked."`
	RevocationList *wire.Bool    `json:"tidy_revocation_list" doc:"Another name of tidy_revoked_certs."`
	Associations   *wire.Bool    `json:"tidy_revoked_cert_issuer_associations" doc:"Accepted for Vault's clients: who issued a certificate is always known."`
	ExpiredIssuers *wire.Bool    `json:"tidy_expired_issuers" doc:"Remove issuers that expired, but for the default one."`
	ACME           *wire.Bool    `json:"tidy_acme" doc:"Remove orders that ended, and accounts that have none."`
	Buffer         *wire.Seconds `json:"safety_buffer" doc:"How long ago certificates have to have expired, 72h unless given."`
	IssuerBuffer   *wire.Seconds `json:"issuer_safety_buffer" doc:"How long ago issuers have to have expired, a year unless given."`
	ACMEBuffer     *wire.Seconds `json:"acme_account_safety_buffer" doc:"How old accounts without orders have to be, 720h unless given."`
	Pause          *string       `json:"pause_duration" doc:"How long to wait between certificates, 0s unless given."`
}

func (in Tidy) apply(o *sweepOptions) error {
	rows.Set((*wire.Bool)(&o.Certs), in.Certs)
	rows.Set((*wire.Bool)(&o.Revoked), in.RevocationList)
	rows.Set((*wire.Bool)(&o.Revoked), in.Revoked)
	rows.Set((*wire.Bool)(&o.Associations), in.Associations)
	rows.Set((*wire.Bool)(&o.ExpiredIssuers), in.ExpiredIssuers)
	rows.Set((*wire.Bool)(&o.ACME), in.ACME)
	rows.Set(&o.Buffer, in.Buffer)
	rows.Set(&o.IssuerBuffer, in.IssuerBuffer)
	rows.Set(&o.ACMEBuffer, in.ACMEBuffer)
	rows.Set(&o.Pause, in.Pause)
	switch pause, err := wire.ParseDuration(o.Pause); {
	case err != nil || pause < 0 || pause > time.Minute:
		return fault.New(fault.Invalid, "pause_duration is a duration up to a minute")
	case o.Buffer < wire.Seconds(time.Second):
		return fault.New(fault.Invalid, "safety_buffer must be greater than zero")
	case o.IssuerBuffer < wire.Seconds(time.Second):
		return fault.New(fault.Invalid, "issuer_safety_buffer must be greater than zero")
	}
	return nil
}

func (o *sweepOptions) nothing() bool {
	return !o.Certs && !o.Revoked && !o.Associations && !o.ExpiredIssuers && !o.ACME
}

// States of a removal.
const (
	tidyIdle       = "Inactive"
	tidyRunning    = "Running"
	tidyFinished   = "Finished"
	tidyCancelling = "Cancelling"
	tidyCancelled  = "Cancelled"
)

// TidyStatus is how a removal goes.
type TidyStatus struct {
	sweepOptions
	State         string     `json:"state"`
	Error         *string    `json:"error"`
	Started       *time.Time `json:"time_started"`
	Finished      *time.Time `json:"time_finished"`
	Auto          *time.Time `json:"last_auto_tidy_finished"`
	Message       *string    `json:"message"`
	CertCount     int64      `json:"cert_store_deleted_count"`
	RevokedCount  int64      `json:"revoked_cert_deleted_count"`
	IssuerCount   int64      `json:"expired_issuer_deleted_count"`
	MissingIssuer int64      `json:"missing_issuer_cert_count"`
}

// tidyState is its row.
type tidyState struct {
	Options  sweepOptions `json:"options"`
	State    string       `json:"state"`
	Started  time.Time    `json:"started"`
	Finished time.Time    `json:"finished,omitzero"`
	Auto     bool         `json:"auto,omitempty"`
	LastAuto time.Time    `json:"last_auto,omitzero"`
	Phase    int          `json:"phase"`
	After    string       `json:"after,omitempty"` // the last row that was looked at
	Certs    int64        `json:"certs"`
	Revoked  int64        `json:"revoked"`
	Issuers  int64        `json:"issuers"`
}

func (s *tidyState) busy() bool { return s.State == tidyRunning || s.State == tidyCancelling }

func loadTidy(r storage.Reader) (*tidyState, error) {
	s, err := storage.Load[tidyState](r, tidyRow)
	if err == nil && s == nil {
		s = &tidyState{Options: standardSweep(), State: tidyIdle}
	}
	return s, err
}

// begin starts a removal, or says that one is under way.
func begin(t engine.Txn, o sweepOptions, auto bool) (started bool, err error) {
	s, err := loadTidy(t)
	if err != nil || s.busy() {
		return false, err
	}
	next := tidyState{Options: o, State: tidyRunning, Started: time.Now().UTC(), Auto: auto, LastAuto: s.LastAuto}
	if err := storage.Save(t, tidyRow, next); err != nil {
		return false, err
	}
	return true, t.Schedule(tidyTask, time.Now())
}

func (e *Engine) tidy(ctx context.Context, _ route.Caller, in Tidy) (out route.Empty, err error) {
	o := standardSweep()
	if err := in.apply(&o); err != nil {
		return out, err
	}
	if o.nothing() {
		out.Warn("No targets to tidy; specify tidy_cert_store=true or tidy_revoked_certs=true to start a tidy operation.")
		return out, nil
	}
	started := false
	if _, err = e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		started, err = begin(t, o, false)
		return err
	}); err != nil {
		return out, err
	}
	if !started {
		out.Warn("Tidy operation already in progress.")
		return out, nil
	}
	out.Status = 202
	out.Warn("Tidy operation successfully started. Any information from the operation is in tidy-status.")
	return out, nil
}

func (e *Engine) tidyStatus(ctx context.Context, _ route.Caller, _ route.Nothing) (out TidyStatus, err error) {
	var s *tidyState
	if err := e.env.Storage.View(ctx, func(r storage.Reader) error {
		s, err = loadTidy(r)
		return err
	}); err != nil {
		return out, err
	}
	out = TidyStatus{sweepOptions: s.Options, State: s.State, CertCount: s.Certs, RevokedCount: s.Revoked, IssuerCount: s.Issuers}
	given := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	out.Started, out.Finished, out.Auto = given(s.Started), given(s.Finished), given(s.LastAuto)
	return out, nil
}

func (e *Engine) tidyCancel(ctx context.Context, by route.Caller, _ route.Nothing) (out TidyStatus, err error) {
	if _, err = e.env.Storage.Update(ctx, func(t storage.Txn) error {
		s, err := loadTidy(t)
		if err != nil {
			return err
		}
		if !s.busy() {
			return fault.New(fault.Invalid, "Tidy operation cannot be cancelled as none is currently running.")
		}
		s.State = tidyCancelling
		return storage.Save(t, tidyRow, s)
	}); err != nil {
		return out, err
	}
	return e.tidyStatus(ctx, by, route.Nothing{})
}

// The phases of a removal.
var phases = []struct {
	prefix string
	on     func(o *sweepOptions) bool
	// dead reports whether a row is to be removed.
	dead  func(row storage.Entry, before time.Time) (bool, error)
	count func(s *tidyState) *int64
}{
	{certRows, func(o *sweepOptions) bool { return o.Certs }, func(row storage.Entry, before time.Time) (bool, error) {
		c, err := storage.Decode[stored](row.Key, row.Value, nil)
		return err == nil && c.Expires.Before(before), err
	}, func(s *tidyState) *int64 { return &s.Certs }},
	{revokedRows, func(o *sweepOptions) bool { return o.Revoked }, func(row storage.Entry, before time.Time) (bool, error) {
		g, err := storage.Decode[gone](row.Key, row.Value, nil)
		return err == nil && g.Expires.Before(before), err
	}, func(s *tidyState) *int64 { return &s.Revoked }},
}

// goOn removes what expired, some of it at a time: what was looked at is written
// down, and whoever goes on after a crash goes on there.
func (e *Engine) goOn(ctx context.Context, t engine.Task) error {
	for {
		done, removed, err := e.sweepSome(ctx, t)
		if err != nil || done {
			return err
		}
		if removed == 0 {
			continue
		}
		s, err := storage.LoadFrom[tidyState](ctx, e.env.Storage, tidyRow)
		if err != nil {
			return err
		}
		if pause := duration(s.Options.Pause); pause > 0 {
			select {
			case <-time.After(min(time.Duration(removed)*pause, time.Minute)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// sweepSome looks at some rows.
func (e *Engine) sweepSome(ctx context.Context, t engine.Task) (done bool, removed int, err error) {
	var page []storage.Entry
	const most, kept = 1000, 80 // rows looked at, and removed at once
	if err := e.env.Storage.View(ctx, func(r storage.Reader) error {
		s, err := loadTidy(r)
		if err != nil || s.Phase >= len(phases) || !phases[s.Phase].on(&s.Options) {
			return err
		}
		page, err = r.Scan(phases[s.Phase].prefix, s.After, most)
		return err
	}); err != nil {
		return false, 0, err
	}
	over := false
	err = t.Update(ctx, func(tx engine.TaskTxn) error {
		done, removed, over = false, 0, false
		s, err := loadTidy(tx)
		if err != nil {
			return err
		}
		if s.State != tidyRunning || s.Phase >= len(phases) {
			done, over = true, s.State == tidyRunning
			return e.endTidy(tx, s)
		}
		p := phases[s.Phase]
		before := time.Now().Add(-s.Options.Buffer.Duration())
		complete := true
		for _, row := range page {
			dead, err := p.dead(row, before)
			if err != nil {
				return err
			}
			if dead {
				if removed == kept {
					complete = false
					break
				}
				if err := tx.Delete(row.Key); err != nil {
					return err
				}
				removed++
			}
			s.After = row.Key
		}
		*p.count(s) += int64(removed)
		if complete && len(page) < most {
			s.Phase, s.After = s.Phase+1, ""
		}
		return storage.Save(tx, tidyRow, s)
	})
	if err == nil && over {
		err = e.afterTidy(ctx)
	}
	return done, removed, err
}

// endTidy ends a removal: issuers that expired go in one commit with its end.
func (e *Engine) endTidy(t engine.TaskTxn, s *tidyState) error {
	if !s.busy() {
		return t.Done()
	}
	now := time.Now().UTC()
	if s.State == tidyCancelling {
		s.State = tidyCancelled
	} else {
		s.State = tidyFinished
		if s.Options.ExpiredIssuers {
			if err := s.issuers(t, now); err != nil {
				return err
			}
		}
	}
	if s.Finished = now; s.Auto {
		s.LastAuto = now
	}
	if err := storage.Save(t, tidyRow, s); err != nil {
		return err
	}
	return t.Done()
}

func (s *tidyState) issuers(t engine.Txn, now time.Time) error {
	b, err := loadBook(t)
	if err != nil {
		return err
	}
	before := len(b.Issuers)
	b.Issuers = slices.DeleteFunc(b.Issuers, func(i *issuer) bool {
		return i.ID != b.DefaultIssuer && i.cert.NotAfter.Add(s.Options.IssuerBuffer.Duration()).Before(now)
	})
	if s.Issuers = int64(before - len(b.Issuers)); s.Issuers == 0 {
		return nil
	}
	for _, i := range b.Issuers {
		i.Manual = slices.DeleteFunc(i.Manual, func(id string) bool { return b.issuer(id) == nil })
	}
	return b.save(t)
}

// afterTidy makes the lists anew, without what was removed.
func (e *Engine) afterTidy(ctx context.Context) error {
	s, err := storage.LoadFrom[tidyState](ctx, e.env.Storage, tidyRow)
	if err != nil || s == nil || s.Revoked == 0 {
		return err
	}
	if err := e.buildAll(ctx, true); err != nil {
		// They are shorter than they were, and nothing is lost: the clock makes the next.
		e.env.Log.Warn("the lists of revoked certificates were not made after tidy", "mount", e.env.Mount.Path, "error", strings.TrimSpace(err.Error()))
	}
	return nil
}

// autoTidy is the row of config/auto-tidy.
type autoTidy struct {
	Enabled  bool         `json:"enabled"`
	Interval wire.Seconds `json:"interval_duration"`
	sweepOptions
	Counts  bool `json:"maintain_stored_certificate_counts"`
	Publish bool `json:"publish_stored_certificate_count_metrics"`
}

// WriteAutoTidy sets when what expired is removed by the clock.
type WriteAutoTidy struct {
	Enabled  *wire.Bool    `json:"enabled" doc:"Whether it is."`
	Interval *wire.Seconds `json:"interval_duration" doc:"How often, 12h unless given."`
	Tidy
	Counts  *wire.Bool `json:"maintain_stored_certificate_counts" doc:"Accepted for Vault's clients."`
	Publish *wire.Bool `json:"publish_stored_certificate_count_metrics" doc:"Accepted for Vault's clients."`
}

func loadAutoTidy(r storage.Reader) (*autoTidy, error) {
	a, err := storage.Load[autoTidy](r, autoTidyRow)
	if err == nil && a == nil {
		a = &autoTidy{Interval: wire.Seconds(12 * time.Hour), sweepOptions: standardSweep()}
	}
	return a, err
}

func (e *Engine) readAutoTidy(ctx context.Context, _ route.Caller, _ route.Nothing) (out autoTidy, err error) {
	err = e.env.Storage.View(ctx, func(r storage.Reader) error {
		a, err := loadAutoTidy(r)
		if err == nil {
			out = *a
		}
		return err
	})
	return out, err
}

func (e *Engine) writeAutoTidy(ctx context.Context, _ route.Caller, in WriteAutoTidy) (out autoTidy, err error) {
	_, err = e.env.Agenda.Update(ctx, func(t engine.Txn) error {
		a, err := loadAutoTidy(t)
		if err != nil {
			return err
		}
		rows.Set((*wire.Bool)(&a.Enabled), in.Enabled)
		rows.Set(&a.Interval, in.Interval)
		rows.Set((*wire.Bool)(&a.Counts), in.Counts)
		rows.Set((*wire.Bool)(&a.Publish), in.Publish)
		if err := in.Tidy.apply(&a.sweepOptions); err != nil {
			return err
		}
		if a.Interval.Duration() < time.Minute {
			return fault.New(fault.Invalid, "interval_duration must be a minute or more")
		}
		if a.Enabled && a.nothing() {
			return fault.New(fault.Invalid, "auto-tidy enabled but no tidy operations were requested; enable at least one tidy operation to be run (tidy_cert_store, tidy_revoked_certs, tidy_expired_issuers or tidy_acme)")
		}
		out = *a
		if err := storage.Save(t, autoTidyRow, a); err != nil {
			return err
		}
		if !a.Enabled {
			return t.Cancel(autoTidyTask)
		}
		return t.Schedule(autoTidyTask, time.Now().Add(a.Interval.Duration()))
	})
	return out, err
}

// autoBegin starts a removal by the clock.
func (e *Engine) autoBegin(ctx context.Context, t engine.Task) error {
	return t.Update(ctx, func(t engine.TaskTxn) error {
		a, err := loadAutoTidy(t)
		if err != nil {
			return err
		}
		if !a.Enabled {
			return t.Done()
		}
		if _, err := begin(t, a.sweepOptions, true); err != nil {
			return err
		}
		return t.Again(time.Now().Add(a.Interval.Duration()))
	})
}
