// Package kv is the engine of static secrets, in the two versions of Vault's
// wire: V1 keeps one value per path, V2 numbered versions with labels. Both are
// route tables over one Store with one layout of rows, so a version 1 mount
// becomes a version 2 mount by being opened with the other table.
//
// # Versions and labels
//
// A version is never rewritten. Its number is one more than that of the newest
// version, staged ones included. Labels point at versions: a plain write moves
// active to the version it adds and previous to the one that was active; a
// staged write adds a version under pending, or under a label of the user's
// own, and moves nothing else. A read that names neither version nor label
// reads active. Promote and rollback move active; rollback returns to previous.
// deprecated is a mark on versions, of which there may be many; reading a
// deprecated version warns and is counted, and active is never deprecated.
//
// # Vault's current_version and check-and-set
//
// current_version is the newest number that was ever active. While nothing is
// staged or rolled back it is the newest version and the active one, as in
// Vault. The check-and-set number of a plain write or patch must be that of the
// newest version or that of the active one, which is what a client has read;
// it cannot be both wrong and current, and of two writers with the same number
// one wins, because a write moves active and newest at once. A staged write
// moves only the newest number, so its check-and-set must be exactly that. 0
// always means that the path holds no version at all.
//
// # Retention
//
// max_versions removes the oldest versions with the write that exceeds it,
// except those that active, pending, previous (when more than one is kept) or a
// label of the user's own points at. delete_version_after sets a version's
// deletion_time when it is written: from then on it answers as deleted, and can
// be undeleted, as in Vault. destroy_deleted_after is Coffer's own: so long
// after its deletion_time a version's data is destroyed for good. 0, the
// default, never does that.
//
// # Expiry
//
// A secret past its expires_at still reads, with a warning, because an outage
// at a forgotten date is worse than a late renewal. With expiry "enforce" its
// versions answer as deleted ones do.
//
// # Last reads
//
// Who read a secret last, and when, is kept in memory and written in bulk every
// FlushInterval and when Run ends. A server that is killed forgets at most the
// reads of the last FlushInterval; the audit log has them.
//
// The package is not for credentials that are made on demand, nor for leases.
package kv
