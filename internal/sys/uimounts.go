package sys

import (
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// UIMounts are the mounts that a caller may use something of.
type UIMounts struct {
	Secret map[string]MountInfo `json:"secret"`
	Auth   map[string]MountInfo `json:"auth"`
}

func (s *System) uiMounts(ctx context.Context, by route.Caller, _ route.Nothing) (UIMounts, error) {
	out := UIMounts{Secret: map[string]MountInfo{}, Auth: map[string]MountInfo{}}
	open := s.Open()
	acl, err := open.Policies.ACL(ctx, by.Policies)
	if err != nil {
		return out, err
	}
	for _, m := range open.Mounts.List() {
		if !acl.IsRoot() && !acl.AnyBelow(m.Entry.Path) && m.Entry.Config.ListingVisibility != "unauth" {
			continue
		}
		if path, ok := strings.CutPrefix(m.Entry.Path, "auth/"); ok {
			out.Auth[path] = describe(m.Entry)
		} else {
			out.Secret[m.Entry.Path] = describe(m.Entry)
		}
	}
	return out, nil
}

// UIMount is the mount that a path lies in.
type UIMount struct {
	MountInfo
	Path string `json:"path"`
}

func (s *System) uiMount(ctx context.Context, by route.Caller, in MountPath) (UIMount, error) {
	open := s.Open()
	m, _ := open.Mounts.Find(in.Path)
	acl, err := open.Policies.ACL(ctx, by.Policies)
	if err != nil {
		return UIMount{}, err
	}
	if m == nil || !acl.IsRoot() && !acl.AnyBelow(m.Entry.Path) {
		// One answer for both, so that nobody learns of mounts he may not use.
		return UIMount{}, fault.New(fault.Denied, "preflight capability check returned 403, please ensure client's policies grant access to path %q", strings.TrimSuffix(in.Path, "/")+"/")
	}
	return UIMount{MountInfo: describe(m.Entry), Path: m.Entry.Path}, nil
}
