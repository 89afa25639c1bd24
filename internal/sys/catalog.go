package sys

import (
	"cmp"
	"context"
	"slices"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/route"
)

var catalogRoutes = []route.Route[*System]{
	route.New("GET", "plugins/catalog", "List the kinds of engines and methods that can be mounted.", (*System).catalog),
	route.New("GET", "plugins/catalog/{class}/{name}", "Read about one kind.", (*System).catalogEntry, route.Sudo(),
		route.Shows("plugins/catalog/secret/kv", "", "")),
}

// Catalog lists the kinds, in Vault's shape.
type Catalog struct {
	Auth     []string        `json:"auth"`
	Database []string        `json:"database"`
	Secret   []string        `json:"secret"`
	Detailed []CatalogDetail `json:"detailed"`
}

// CatalogDetail is one kind.
type CatalogDetail struct {
	Builtin     bool   `json:"builtin"`
	Deprecation string `json:"deprecation_status"`
	Name        string `json:"name"`
	Type        string `json:"type"`
	Version     string `json:"version"`
	Doc         string `json:"description"`
}

func (s *System) catalog(context.Context, route.Caller, route.Nothing) (Catalog, error) {
	out := Catalog{Auth: []string{}, Secret: []string{}, Database: []string{}}
	for _, k := range s.Kinds() {
		list := &out.Secret
		switch k.Class {
		case engine.Auth:
			list = &out.Auth
		case engine.System:
			continue
		}
		if slices.Contains(*list, k.Name) {
			continue
		}
		*list = append(*list, k.Name)
		out.Detailed = append(out.Detailed, CatalogDetail{true, "supported", k.Name, string(k.Class), "v" + APILevel + "+builtin.coffer", k.Doc})
	}
	slices.Sort(out.Auth)
	slices.Sort(out.Secret)
	slices.SortStableFunc(out.Detailed, func(a, b CatalogDetail) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// CatalogName names a kind.
type CatalogName struct {
	Class string `path:"class" doc:"auth or secret."`
	Name  string `path:"name" doc:"The kind."`
}

func (s *System) catalogEntry(_ context.Context, _ route.Caller, in CatalogName) (CatalogDetail, error) {
	for _, k := range s.Kinds() {
		if k.Name == in.Name && string(k.Class) == in.Class {
			return CatalogDetail{true, "supported", k.Name, string(k.Class), "v" + APILevel + "+builtin.coffer", k.Doc}, nil
		}
	}
	return CatalogDetail{}, route.Missing()
}
