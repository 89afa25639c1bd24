package sys

import (
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/namespace"
	"github.com/cofferhq/coffer/internal/realm"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var namespaceRoutes = []route.Route[*System]{
	route.New("LIST", "namespaces", "List the namespaces directly in this one.", (*System).listNamespaces,
		route.Shows("namespaces", "", "")),
	route.New("GET", "namespaces/{path...}", "Read a namespace.", (*System).readNamespace,
		route.Shows("namespaces/team", "", "")),
	route.New("POST", "namespaces/{path...}", "Make a namespace, or replace its metadata.", (*System).createNamespace,
		route.Shows("namespaces/team", `{"custom_metadata":{"owner":"web"}}`, "")),
	route.New("PATCH", "namespaces/{path...}", "Merge metadata into that of a namespace.", (*System).patchNamespace,
		route.Shows("namespaces/team", `{"custom_metadata":{"owner":null}}`, "")),
	route.New("DELETE", "namespaces/{path...}", "Delete a namespace, and destroy the keys of all that is in it.", (*System).deleteNamespace,
		route.Shows("namespaces/team", "", "")),
	route.New("POST", "namespaces/api-lock/lock", "Lock this namespace: refuse every request in it and below.", (*System).lockHere,
		route.Shows("namespaces/api-lock/lock", "", "")),
	route.New("POST", "namespaces/api-lock/lock/{path...}", "Lock a namespace below this one: refuse every request in it and below.", (*System).lockNamespace,
		route.Shows("namespaces/api-lock/lock/team", "", "")),
	route.New("POST", "namespaces/api-lock/unlock", "Unlock this namespace.", (*System).unlockHere, route.WhileLocked(),
		route.Shows("namespaces/api-lock/unlock", `{"unlock_key":"the key that locking answered"}`, "")),
	route.New("POST", "namespaces/api-lock/unlock/{path...}", "Unlock a namespace below this one.", (*System).unlockNamespace, route.WhileLocked(),
		route.Shows("namespaces/api-lock/unlock/team", `{"unlock_key":"the key that locking answered"}`, "")),
}

// NamespacePath names a namespace from the one that is asked.
type NamespacePath struct {
	Path string `path:"path" doc:"Its path from the namespace that is asked."`
}

// NamespaceInfo is a namespace on the wire.
type NamespaceInfo struct {
	route.Notes
	ID       string         `json:"id"`
	UUID     string         `json:"uuid"`
	Path     string         `json:"path"` // from the root
	Locked   bool           `json:"locked"`
	Tainted  bool           `json:"tainted"` // being deleted, which is never shown here
	Metadata wire.StringMap `json:"custom_metadata"`
}

func aboutNamespace(n *namespace.Namespace) NamespaceInfo {
	out := NamespaceInfo{ID: n.ID, UUID: n.UUID, Path: n.Path, Locked: n.Lock != "", Metadata: n.Metadata}
	if out.Metadata == nil {
		out.Metadata = wire.StringMap{}
	}
	return out
}

// from is a path from the root, of one from this namespace.
func (s *System) from(path string) string { return s.Open().Namespace.Path + strings.Trim(path, "/") }

// below returns the realm of a namespace below this one.
func (s *System) below(path string) (*realm.Realm, error) {
	r := s.Open().Realms.At(s.from(path))
	if r == nil || r.Namespace.ID == s.namespace {
		return nil, route.Missing()
	}
	return r, nil
}

func (s *System) listNamespaces(_ context.Context, _ route.Caller, in route.Page) (route.KeysInfo[NamespaceInfo], error) {
	out := route.KeysInfo[NamespaceInfo]{Info: map[string]NamespaceInfo{}}
	open := s.Open()
	for _, r := range open.Realms.Below(open.Realm) {
		name := strings.TrimPrefix(r.Namespace.Path, open.Namespace.Path)
		if strings.Count(name, "/") > 1 || name <= in.After {
			continue
		}
		if in.Limit > 0 && len(out.Keys) >= int(in.Limit) {
			break
		}
		out.Keys = append(out.Keys, name)
		out.Info[name] = aboutNamespace(r.Namespace)
	}
	if len(out.Keys) == 0 {
		return out, route.Missing()
	}
	return out, nil
}

func (s *System) readNamespace(_ context.Context, _ route.Caller, in NamespacePath) (NamespaceInfo, error) {
	r, err := s.below(in.Path)
	if err != nil {
		return NamespaceInfo{}, err
	}
	return aboutNamespace(r.Namespace), nil
}

// CreateNamespace asks for a namespace.
type CreateNamespace struct {
	NamespacePath
	Metadata wire.StringMap `json:"custom_metadata" doc:"Pairs of text; never secret."`
}

func (s *System) createNamespace(ctx context.Context, _ route.Caller, in CreateNamespace) (NamespaceInfo, error) {
	if strings.HasPrefix(in.Path, "api-lock/") || strings.Trim(in.Path, "/") == "api-lock" {
		return NamespaceInfo{}, fault.New(fault.Invalid, "%q is no name for a namespace: it is reserved", "api-lock")
	}
	open := s.Open()
	n, err := open.Realms.Namespaces.Create(ctx, s.from(in.Path), in.Metadata)
	if err != nil {
		return NamespaceInfo{}, err
	}
	return aboutNamespace(n), open.Realms.Load(ctx)
}

// PatchNamespace changes the metadata of a namespace.
type PatchNamespace struct {
	NamespacePath
	Metadata map[string]*string `json:"custom_metadata" doc:"Pairs to set; null removes one."`
}

func (s *System) patchNamespace(ctx context.Context, _ route.Caller, in PatchNamespace) (NamespaceInfo, error) {
	open := s.Open()
	n, err := open.Realms.Namespaces.Patch(ctx, s.from(in.Path), in.Metadata)
	if err != nil {
		return NamespaceInfo{}, err
	}
	return aboutNamespace(n), open.Realms.Load(ctx)
}

// Deletion says how far the deletion of a namespace is: nothing of it can be read any
// more, and its rows are being erased. It is empty where there was nothing to delete.
type Deletion struct {
	route.Notes
	Status string `json:"status,omitempty"`
}

func (s *System) deleteNamespace(ctx context.Context, _ route.Caller, in NamespacePath) (Deletion, error) {
	open := s.Open()
	err := open.Realms.Namespaces.Delete(ctx, s.from(in.Path))
	if fault.Is(err, fault.NotFound) {
		var out Deletion
		out.Warn("requested namespace does not exist")
		return out, nil
	}
	if err != nil {
		return Deletion{}, err
	}
	return Deletion{Status: "in-progress"}, open.Realms.Load(ctx)
}

// Locked answers the key that unlocks a namespace. It is shown once.
type Locked struct {
	UnlockKey wire.Secret `json:"unlock_key"`
}

// MarshalJSON shows the key, which is kept as a hash only.
func (l Locked) MarshalJSON() ([]byte, error) {
	return []byte(`{"unlock_key":"` + l.UnlockKey.Reveal() + `"}`), nil
}

func (s *System) lock(ctx context.Context, path string) (Locked, error) {
	open := s.Open()
	key, err := open.Realms.Namespaces.Lock(ctx, path)
	if err != nil {
		return Locked{}, err
	}
	return Locked{wire.Secret(key)}, open.Realms.Load(ctx)
}

func (s *System) lockHere(ctx context.Context, _ route.Caller, _ route.Nothing) (Locked, error) {
	return s.lock(ctx, s.Open().Namespace.Path)
}

func (s *System) lockNamespace(ctx context.Context, _ route.Caller, in NamespacePath) (Locked, error) {
	return s.lock(ctx, s.from(in.Path))
}

// Unlock says by what a namespace is unlocked.
type Unlock struct {
	UnlockKey wire.Secret `json:"unlock_key" doc:"The key that locking answered; the root token needs none."`
}

// UnlockPath unlocks a namespace below the one that is asked.
type UnlockPath struct {
	NamespacePath
	Unlock
}

func (s *System) unlock(ctx context.Context, by route.Caller, path string, in Unlock) (route.Empty, error) {
	open := s.Open()
	if err := open.Realms.Namespaces.Unlock(ctx, path, in.UnlockKey.Reveal(), by.Root); err != nil {
		return route.Empty{}, err
	}
	return route.Empty{}, open.Realms.Load(ctx)
}

func (s *System) unlockHere(ctx context.Context, by route.Caller, in Unlock) (route.Empty, error) {
	return s.unlock(ctx, by, s.Open().Namespace.Path, in)
}

func (s *System) unlockNamespace(ctx context.Context, by route.Caller, in UnlockPath) (route.Empty, error) {
	return s.unlock(ctx, by, s.from(in.Path), in.Unlock)
}
