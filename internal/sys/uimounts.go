package sys

import (
	"context"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// UIMounts are the mounts that a caller may use something of.
type UIMounts struct {
	Secret map[string]ListedMount `json:"secret"`
	Auth   map[string]ListedMount `json:"auth"`
}

// ListedMount is a mount as a person who chooses one is shown it.
type ListedMount struct {
	*MountInfo                    // nil for callers without a token
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options"`
}

// uiMounts shows nobody what is listed for everybody (listing_visibility is unauth),
// so that a person can choose how to log in.
func (s *System) uiMounts(_ context.Context, by route.Caller, _ route.Nothing) (UIMounts, error) {
	out := UIMounts{Secret: map[string]ListedMount{}, Auth: map[string]ListedMount{}}
	open := s.Open()
	for _, m := range open.Mounts.List() {
		public := m.Entry.Config.ListingVisibility == "unauth"
		if !public && (by.Rights == nil || !by.Rights.Any(m.Entry.Path)) {
			continue
		}
		listed := ListedMount{Type: m.Entry.Type, Description: m.Entry.Description, Options: m.Entry.Options}
		if by.Rights != nil {
			whole := describe(m.Entry)
			listed.MountInfo = &whole
		}
		if path, ok := strings.CutPrefix(m.Entry.Path, "auth/"); ok {
			out.Auth[path] = listed
		} else {
			out.Secret[m.Entry.Path] = listed
		}
	}
	if by.Rights == nil && s.namespace != "" && len(out.Auth)+len(out.Secret) == 0 {
		return out, route.NoToken() // as where there is no such namespace
	}
	return out, nil
}

// UIMount is the mount that a path lies in.
type UIMount struct {
	MountInfo
	Path string `json:"path"`
}

func (s *System) uiMount(_ context.Context, by route.Caller, in MountPath) (UIMount, error) {
	open := s.Open()
	m, _ := open.Mounts.Find(in.Path)
	if m == nil || !by.Rights.Any(m.Entry.Path) {
		// One answer for both, so that nobody learns of mounts he may not use.
		return UIMount{}, fault.New(fault.Denied, "preflight capability check returned 403, please ensure client's policies grant access to path %q", strings.TrimSuffix(in.Path, "/")+"/")
	}
	return UIMount{MountInfo: describe(m.Entry), Path: m.Entry.Path}, nil
}
