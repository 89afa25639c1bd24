package sys

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/policy/policystore"
	"github.com/cofferhq/coffer/internal/route"
)

var appliedRoutes = []route.Route[*System]{
	route.New("GET", "policies/applied/{set}", "Read what coffer policy apply made of a directory.", (*System).applied,
		route.Shows("policies/applied/main", "", `{"revision":0,"items":[]}`)),
	route.New("POST", "policies/applied/{set}", "Remember what coffer policy apply made of a directory.", (*System).recordApplied,
		route.Shows("policies/applied/main", `{"revision":0,"put":[{"id":"policy:app","fingerprint":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}]}`, `{"revision":1}`)),
}

// AppliedSet names a set: a directory that is applied.
type AppliedSet struct {
	Set string `path:"set" doc:"The set's name."`
}

// Applied is what was made of a directory.
type Applied struct {
	Revision uint64                    `json:"revision"`
	Items    []policystore.AppliedItem `json:"items"`
}

func (s *System) applied(ctx context.Context, _ route.Caller, in AppliedSet) (Applied, error) {
	all, err := s.Open().Policies.Applied(ctx, in.Set)
	if all.Items == nil {
		all.Items = []policystore.AppliedItem{}
	}
	return Applied(all), err
}

// RecordApplied changes what is remembered of a set.
type RecordApplied struct {
	AppliedSet
	Revision uint64       `json:"revision" doc:"The set's revision that this changes."`
	Put      []RecordItem `json:"put" doc:"Items that were made."`
	Remove   []string     `json:"remove" doc:"Ids of items that were removed."`
}

// RecordItem is one item that was made.
type RecordItem struct {
	ID          string   `json:"id" doc:"What it is: policy:NAME, mount:PATH/ or path:PATH."`
	Fingerprint string   `json:"fingerprint" doc:"SHA-256, in hex, of what the server had right after."`
	Fields      []string `json:"fields" doc:"The fields that the fingerprint is of."`
}

// Recorded is a set's new revision.
type Recorded struct {
	Revision uint64 `json:"revision"`
}

func (s *System) recordApplied(ctx context.Context, by route.Caller, in RecordApplied) (Recorded, error) {
	put := make([]policystore.AppliedItem, len(in.Put))
	for i, item := range in.Put {
		put[i] = policystore.AppliedItem{
			ID: item.ID, Fingerprint: item.Fingerprint, Fields: item.Fields,
			Time: time.Now().UTC().Truncate(time.Second), By: by.DisplayName,
		}
	}
	revision, err := s.Open().Policies.Record(ctx, in.Set, in.Revision, put, in.Remove)
	return Recorded{revision}, err
}
