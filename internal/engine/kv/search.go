package kv

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

// Bounds of one page of a search.
const (
	searchLimit = 100  // results, unless asked for fewer or more
	searchMost  = 1000 // results at most
	searchScan  = 5000 // secrets looked at
)

// SearchRequest says what to look for; what is empty matches everything.
type SearchRequest struct {
	Path  string       `path:"path" doc:"Folder to search, with everything below it; nothing is the whole mount."`
	Query string       `query:"q" doc:"Part of the path, in any case; with * or ? a pattern for the whole path, in which * goes beyond slashes."`
	Owner string       `query:"owner" doc:"The owner."`
	Kind  string       `query:"kind" doc:"The kind."`
	Tags  wire.Strings `query:"tags" doc:"Tags that must all be there: name, or name=value."`
	After string       `query:"after" doc:"The cursor that the page before answered."`
	Limit wire.Int     `query:"limit" doc:"Most results; 100 unless given, at most 1000."`
}

// Found is a secret that was found.
type Found struct {
	Owner   string         `json:"owner" doc:"Who answers for it."`
	Kind    string         `json:"kind" doc:"What it is."`
	Tags    wire.StringMap `json:"tags" doc:"Names and values by which it is found."`
	Current uint64         `json:"current_version" doc:"The newest version that was ever active."`
	Updated wire.Time      `json:"updated_time" doc:"When it was last changed."`
}

// SearchResponse is one page of what was found. A page may be empty although
// there are more.
type SearchResponse struct {
	route.Notes
	Keys   []string         `json:"keys" doc:"Paths of the secrets found, in order."`
	Info   map[string]Found `json:"key_info" doc:"About each whose metadata the caller may read."`
	Cursor string           `json:"cursor" doc:"Send it as after to get the next page; empty when there is none."`
}

// Search answers the secrets that match and whose names the caller may see: by
// reading their metadata, or by listing their folder. To the latter only names
// are told, and none when the question was about more than names.
func (s *Store) Search(ctx context.Context, by route.Caller, in SearchRequest) (SearchResponse, error) {
	out := SearchResponse{Keys: []string{}, Info: map[string]Found{}}
	below, err := engine.Folder(in.Path)
	if err != nil {
		return out, err
	}
	out.Subject = route.Subject{Path: below}
	prefix := metaPrefix
	if below != "" {
		prefix = metaKey(below) + "/"
	}
	limit := int(in.Limit)
	switch {
	case limit < 0:
		return out, errNegative("limit")
	case limit == 0:
		limit = searchLimit
	}
	limit = min(limit, searchMost)
	after, err := parseCursor(in.After, prefix)
	if err != nil {
		return out, err
	}
	err = s.engine.View(ctx, func(r storage.Reader) error {
		for looked := 0; looked < searchScan; {
			const page = 200
			entries, err := r.Scan(prefix, after, page)
			if err != nil {
				return err
			}
			for _, e := range entries {
				after = e.Key
				if err := s.consider(&out, by, &in, e); err != nil {
					return err
				}
				if len(out.Keys) == limit {
					out.Cursor = cursor(after)
					return nil
				}
			}
			if len(entries) < page {
				return nil
			}
			looked += page
		}
		out.Cursor = cursor(after)
		return nil
	})
	return out, err
}

// consider adds a secret to the page when it matches and may be seen.
func (s *Store) consider(out *SearchResponse, by route.Caller, in *SearchRequest, e storage.Entry) error {
	name := strings.TrimPrefix(e.Key, metaPrefix)
	if !matchPath(in.Query, name) {
		return nil
	}
	onlyNames := in.Owner == "" && in.Kind == "" && len(in.Tags) == 0
	if !by.Can(policy.Read, s.mount.Path+"metadata/"+name) {
		parent := name[:strings.LastIndexByte(name, '/')+1]
		if onlyNames && by.Can(policy.List, s.mount.Path+"metadata/"+parent) {
			out.Keys = append(out.Keys, name)
		}
		return nil
	}
	m, err := parseMeta(e.Value)
	if err != nil {
		return err
	}
	a, err := m.describe()
	if err != nil {
		return err
	}
	if in.Owner != "" && in.Owner != a.Owner || in.Kind != "" && in.Kind != a.Kind || !hasTags(a.Tags, in.Tags) {
		return nil
	}
	out.Keys = append(out.Keys, name)
	out.Info[name] = Found{Owner: a.Owner, Kind: a.Kind, Tags: a.Tags, Current: m.current, Updated: wire.Time{Time: m.updated}}
	return nil
}

// matchPath matches a part of the path, or all of it when the query has
// wildcards.
func matchPath(query, name string) bool {
	if query == "" {
		return true
	}
	query, name = strings.ToLower(query), strings.ToLower(name)
	if !strings.ContainsAny(query, "*?") {
		return strings.Contains(name, query)
	}
	return glob(query, name)
}

// glob matches * with any text and ? with any one byte, in time that is at most
// the product of the lengths.
func glob(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p, t = p+1, t+1
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func hasTags(have map[string]string, want []string) bool {
	for _, w := range want {
		name, text, exact := strings.Cut(w, "=")
		got, there := have[name]
		if !there || exact && got != text {
			return false
		}
	}
	return true
}

func cursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

// parseCursor returns the key after which a page begins. A cursor of another
// search is refused, because it could only skip what is looked for.
func parseCursor(text, prefix string) (string, error) {
	if text == "" {
		return "", nil
	}
	key, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(key) > len(metaPrefix)+engine.MaxPath || !strings.HasPrefix(string(key), prefix) {
		return "", fault.New(fault.Invalid, "after: it is not a cursor of this search; send the one that the page before answered")
	}
	return string(key), nil
}
