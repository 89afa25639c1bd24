package sys

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
)

// Remount moves a mount.
type Remount struct {
	From string `json:"from" doc:"The mount's path now."`
	To   string `json:"to" doc:"The path it shall have."`
}

// Migration names a move, as Vault's clients poll it.
type Migration struct {
	route.Doubled
	ID string `json:"migration_id"`
}

// migrationID names the move of a mount by the mount and where it came from:
// a move is one transaction, so that nothing else needs to be remembered.
func migrationID(uuid, from string) string {
	return uuid + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Trim(from, "/")+"/"))
}

func (s *System) remount(ctx context.Context, _ route.Caller, in Remount) (Migration, error) {
	m := s.Open().Mounts.At(in.From)
	if m == nil {
		return Migration{}, fault.New(fault.Invalid, "no matching mount at %q", in.From)
	}
	open := s.Open()
	if err := open.Mounts.Move(ctx, in.From, in.To); err != nil {
		return Migration{}, err
	}
	moved := Migration{ID: migrationID(m.Entry.UUID, in.From)}
	return moved, open.Quotas.Follow(ctx, open.Namespace.Path, m.Entry.Path, strings.Trim(in.To, "/")+"/")
}

// MigrationID names a move.
type MigrationID struct {
	ID string `path:"id" doc:"The migration_id that the move was answered with."`
}

// MigrationStatus is how a move stands. Moves are one transaction, so that one
// that is known has succeeded.
type MigrationStatus struct {
	ID   string        `json:"migration_id"`
	Info MigrationInfo `json:"migration_info"`
}

// MigrationInfo is the state of a move.
type MigrationInfo struct {
	Source string `json:"source_mount"`
	Target string `json:"target_mount"`
	Status string `json:"status"`
}

func (s *System) remountStatus(_ context.Context, _ route.Caller, in MigrationID) (MigrationStatus, error) {
	uuid, from, _ := strings.Cut(in.ID, ".")
	source, err := base64.RawURLEncoding.DecodeString(from)
	for _, m := range s.Open().Mounts.List() {
		if err == nil && m.Entry.UUID == uuid && len(source) > 0 {
			return MigrationStatus{in.ID, MigrationInfo{string(source), m.Entry.Path, "success"}}, nil
		}
	}
	return MigrationStatus{}, fault.New(fault.NotFound, "no migration %s is known", in.ID)
}
