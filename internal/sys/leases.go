package sys

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/lease"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// A lease is named by the path that granted it and a random name. Tokens are
// granted too, and end by the path of their login.
var leaseRoutes = []route.Route[*System]{
	route.New("POST", "leases/lookup", "Look up a lease.", (*System).lookUpLease, route.Reads(),
		route.Shows("leases/lookup", `{"lease_id":"database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE"}`, "")),
	route.New("LIST", "leases/lookup", "List the paths that lent something.", (*System).listLeases, route.Sudo(),
		route.Shows("leases/lookup", "", "")),
	route.New("LIST", "leases/lookup/{prefix...}", "List the leases and paths directly below a path.", (*System).listLeases, route.Sudo(),
		route.Shows("leases/lookup/database/creds/readonly", "", "")),
	route.New("POST", "leases/renew", "Extend a lease.", (*System).renewLease,
		route.Shows("leases/renew", `{"lease_id":"database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE","increment":3600}`, "")),
	route.New("POST", "leases/renew/{url_lease_id...}", "Extend a lease that the path names.", (*System).renewLease,
		route.Shows("leases/renew/database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE", `{"increment":3600}`, "")),
	route.New("POST", "renew", "Another spelling of leases/renew.", (*System).renewLease,
		route.Shows("renew", `{"lease_id":"database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE"}`, "")),
	route.New("POST", "renew/{url_lease_id...}", "Another spelling of leases/renew.", (*System).renewLease,
		route.Shows("renew/database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE", `{}`, "")),
	route.New("POST", "leases/revoke", "End a lease, also one that was set aside because it could not be taken back.", (*System).revokeLease,
		route.Shows("leases/revoke", `{"lease_id":"database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE","sync":true}`, "")),
	route.New("POST", "leases/revoke/{url_lease_id...}", "End a lease that the path names.", (*System).revokeLease,
		route.Shows("leases/revoke/database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE", `{}`, "")),
	route.New("POST", "revoke", "Another spelling of leases/revoke.", (*System).revokeLease,
		route.Shows("revoke", `{"lease_id":"database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE"}`, "")),
	route.New("POST", "revoke/{url_lease_id...}", "Another spelling of leases/revoke.", (*System).revokeLease,
		route.Shows("revoke/database/creds/readonly/6QOZ3JHDBNH2XK4M7VPSWT5YAE", `{}`, "")),
	route.New("POST", "leases/revoke-prefix/{prefix...}", "End everything that was granted at a path or below it, tokens and leases.", (*System).revokePrefix, route.Sudo(),
		route.Shows("leases/revoke-prefix/auth/people/login/ann", "{}", "")),
	route.New("POST", "revoke-prefix/{prefix...}", "Another spelling of leases/revoke-prefix.", (*System).revokePrefix, route.Sudo(),
		route.Shows("revoke-prefix/database/creds", `{}`, "")),
	route.New("POST", "leases/revoke-force/{prefix...}", "End everything that was granted at a path or below it, and forget what cannot be taken back.", (*System).revokeForce, route.Sudo(),
		route.Shows("leases/revoke-force/auth/people", "{}", "")),
	route.New("POST", "revoke-force/{prefix...}", "Another spelling of leases/revoke-force.", (*System).revokeForce, route.Sudo(),
		route.Shows("revoke-force/database/creds", `{}`, "")),
	route.New("GET", "leases", "List the leases that could not be taken back.", (*System).troubledLeases,
		route.Shows("leases", "", "")),
	route.New("GET", "leases/count", "Count the leases that could not be taken back, by mount.", (*System).countLeases,
		route.Shows("leases/count", "", "")),
	route.New("POST", "leases/tidy", "End leases whose tokens have ended, and make due what nothing was to end.", (*System).tidyLeases, route.Sudo(), route.RootOnly(),
		route.Shows("leases/tidy", "{}", "")),
}

// LeaseID names a lease.
type LeaseID struct {
	ID    string `json:"lease_id" doc:"The lease's id, as it was answered with what was lent."`
	InURL string `path:"url_lease_id" doc:"The same, in the path."`
}

// RenewLease asks for a longer life.
type RenewLease struct {
	LeaseID
	Increment wire.Seconds `json:"increment" doc:"How long it is to last from now on; unless given, as long as its role says."`
}

// RevokeLease ends a lease.
type RevokeLease struct {
	LeaseID
	Sync wire.Bool `json:"sync" doc:"Answer when it is taken back, or why it cannot be; it is taken back shortly otherwise."`
}

// LeaseInfo is a lease in Vault's shape.
type LeaseInfo struct {
	ID          string     `json:"id"`
	Path        string     `json:"path"`
	Issued      time.Time  `json:"issue_time"`
	Expires     time.Time  `json:"expire_time"`
	Renewed     *time.Time `json:"last_renewal"`
	Renewable   bool       `json:"renewable"`
	TTL         int64      `json:"ttl"`
	Namespace   string     `json:"namespace_path,omitempty"`
	RevokeError string     `json:"revoke_error,omitempty"`
}

// lent returns the key of the lease that an id names, "" for none, in the namespace
// that is asked or below it.
func (s *System) lent(in LeaseID) (key, id string, err error) {
	if id = strings.Trim(in.ID, "/"); id == "" {
		id = strings.Trim(in.InURL, "/")
	}
	if id == "" {
		return "", "", fault.New(fault.Invalid, "lease_id must be specified")
	}
	open := s.Open()
	realm, path := open.Realms.Find(open.Namespace.Path + id)
	if m, below := realm.Mounts.Find(path); m != nil && below != "" {
		key = m.Entry.UUID + "/" + below
	}
	return key, id, nil
}

func (s *System) lookUpLease(ctx context.Context, _ route.Caller, in LeaseID) (LeaseInfo, error) {
	key, id, err := s.lent(in)
	if err != nil {
		return LeaseInfo{}, err
	}
	l, err := s.Open().Leases.Get(ctx, key)
	if err != nil {
		return LeaseInfo{}, err
	}
	out := LeaseInfo{
		ID: id, Path: id[:strings.LastIndexByte(id, '/')], Issued: l.Issued, Expires: l.Expires, Renewable: l.Renewable,
		TTL: int64(l.Left().Round(time.Second) / time.Second), Namespace: s.Open().Namespace.Path,
	}
	if !l.Renewed.IsZero() {
		out.Renewed = &l.Renewed
	}
	if l.Ending != nil {
		out.RevokeError, out.Renewable = l.Ending.Error, false
	}
	return out, nil
}

// LeasePath names a path that lends.
type LeasePath struct {
	Prefix string `path:"prefix" doc:"The path, such as database/creds/readonly."`
	route.Page
}

// listLeases lists what is directly below a path: of paths between mounts the
// mounts that lent something, and below them what was lent.
func (s *System) listLeases(ctx context.Context, _ route.Caller, in LeasePath) (route.Keys, error) {
	open, path := s.Open(), strings.Trim(in.Prefix, "/")
	limit := int(in.Limit)
	if limit <= 0 {
		limit = maxListed
	}
	realm, rest := open.Realms.Find(open.Namespace.Path + path)
	if m, below := realm.Mounts.Find(rest); m != nil {
		if below != "" {
			below += "/"
		}
		names, err := open.Leases.Names(ctx, m.Entry.UUID+"/"+below, in.After, limit)
		if err != nil {
			return route.Keys{}, err
		}
		return route.Keys{Keys: names}.Found()
	}
	if rest != "" {
		rest += "/"
	}
	var out route.Keys
	for _, m := range realm.Mounts.List() {
		name, ok := strings.CutPrefix(m.Entry.Path, rest)
		if !ok || !m.Spec.Lends() {
			continue
		}
		first, err := open.Leases.Names(ctx, m.Entry.UUID+"/", "", 1)
		if err != nil {
			return out, err
		}
		name = name[:strings.IndexByte(name, '/')+1]
		if len(first) > 0 && name > in.After && len(out.Keys) < limit && (len(out.Keys) == 0 || out.Keys[len(out.Keys)-1] != name) {
			out.Keys = append(out.Keys, name)
		}
	}
	return out.Found()
}

// maxListed is how many leases one list names at most; after and limit page through
// more.
const maxListed = 10_000

func (s *System) renewLease(ctx context.Context, _ route.Caller, in RenewLease) (route.Empty, error) {
	key, id, err := s.lent(in.LeaseID)
	if err != nil {
		return route.Empty{}, err
	}
	out, err := s.Open().Leases.Renew(ctx, key, in.Increment.Duration())
	if err != nil {
		return route.Empty{}, err
	}
	return route.Empty{Notes: route.Notes{
		Warnings: out.Warnings,
		Lease:    &route.Lease{ID: id, TTL: out.Lease.Left(), Renewable: out.Lease.Renewable},
	}}, nil
}

func (s *System) revokeLease(ctx context.Context, _ route.Caller, in RevokeLease) (route.Empty, error) {
	key, _, err := s.lent(in.LeaseID)
	if err != nil {
		return route.Empty{}, err
	}
	if err := s.Open().Leases.Revoke(ctx, key, bool(in.Sync)); err != nil || bool(in.Sync) {
		return route.Empty{}, err
	}
	return accepted(), nil
}

// accepted answers what will be done shortly.
func accepted() route.Empty { return route.Empty{Notes: route.Notes{Status: 202}} }

// LeaseType says which leases.
type LeaseType struct {
	Type  string    `query:"type" doc:"irrevocable, which is the only one: leases that could not be taken back."`
	Below wire.Bool `query:"include_child_namespaces" doc:"Those of namespaces below, too."`
	Limit string    `query:"limit" doc:"Return at most this many, 10000 unless given; none returns all."`
}

// TroubledLease is a lease that could not be taken back.
type TroubledLease struct {
	ID       string     `json:"lease_id"`
	Mount    string     `json:"mount_id"` // the mount's accessor
	Error    string     `json:"error"`    // the target's words
	Why      string     `json:"reason"`   // why it is to end
	Refused  int        `json:"refused"`  // how often the target refused, and Away how often it was out of reach
	Away     int        `json:"unreachable"`
	Last     time.Time  `json:"last_try"`
	SetAside bool       `json:"set_aside"` // it is not tried again by itself
	Since    *time.Time `json:"since"`
}

// TroubledLeases are those of a namespace.
type TroubledLeases struct {
	route.Notes
	Count  int             `json:"lease_count"`
	Leases []TroubledLease `json:"leases"`
}

// LeaseCount counts leases by the accessors of their mounts.
type LeaseCount struct {
	Count  int            `json:"lease_count"`
	Mounts map[string]int `json:"counts"`
}

func (s *System) troubledLeases(ctx context.Context, _ route.Caller, in LeaseType) (TroubledLeases, error) {
	limit := maxListed
	switch n, err := strconv.Atoi(in.Limit); {
	case in.Limit == "":
	case strings.EqualFold(in.Limit, "none"):
		limit = 0
	case err != nil || n < 1:
		return TroubledLeases{}, fault.New(fault.Invalid, "limit must be 'none' or a positive integer")
	default:
		limit = n
	}
	out := TroubledLeases{Leases: []TroubledLease{}}
	err := s.troubled(ctx, in, func(id, accessor string, l *lease.Lease) {
		out.Count++
		if limit == 0 || len(out.Leases) < limit {
			e := l.Ending
			out.Leases = append(out.Leases, TroubledLease{
				ID: id, Mount: accessor, Error: e.Error, Why: e.Why, Refused: e.Refused, Away: e.Away, Last: e.Last, SetAside: e.Aside, Since: &e.Since,
			})
		}
	})
	if out.Count > len(out.Leases) {
		out.Warn("there are " + strconv.Itoa(out.Count) + " of them; ask with limit=none for all")
	}
	return out, err
}

func (s *System) countLeases(ctx context.Context, _ route.Caller, in LeaseType) (LeaseCount, error) {
	out := LeaseCount{Mounts: map[string]int{}}
	err := s.troubled(ctx, in, func(_, accessor string, _ *lease.Lease) {
		out.Count++
		out.Mounts[accessor]++
	})
	return out, err
}

// troubled calls fn with each lease of the namespace that could not be taken back.
func (s *System) troubled(ctx context.Context, in LeaseType, fn func(id, accessor string, l *lease.Lease)) error {
	if in.Type != "" && !strings.EqualFold(in.Type, "irrevocable") {
		return fault.New(fault.Invalid, "type must be irrevocable")
	}
	open := s.Open()
	for after := ""; ; {
		page, err := open.Leases.Troubled(ctx, after, revokePage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, l := range page {
			after = l.Key
			home := open.Realms.Of(l.Namespace)
			if home == nil || !(l.Namespace == open.Namespace.ID || bool(in.Below) && open.Namespace.Contains(home.Namespace)) {
				continue
			}
			id, accessor := l.Key, ""
			if m := home.Mounts.ByUUID(l.Mount()); m != nil {
				id = strings.TrimPrefix(home.Namespace.Path, open.Namespace.Path) + m.Entry.Path + strings.TrimPrefix(l.Key, l.Mount()+"/")
				accessor = m.Entry.Accessor
			}
			fn(id, accessor, l)
		}
	}
}

func (s *System) tidyLeases(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	sum, err := s.Open().Leases.Tidy(ctx)
	if err != nil {
		return route.Empty{}, err
	}
	out := accepted()
	out.Warn("Tidy finished: " + strconv.Itoa(sum.Looked) + " leases looked at, " + strconv.Itoa(sum.Ended) + " ended with tokens that had, " + strconv.Itoa(sum.Due) + " made due.")
	return out, nil
}
