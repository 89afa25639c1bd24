// Package audit is the append-only record of everything a server did and
// refused. An entry is on disk before the answer it describes leaves, and a
// later edit, deletion, reordering or cut shows.
//
// # Files
//
// One directory holds one log:
//
//	audit-00000001.log …  segments: a header line, then one JSON entry per line
//	hashes                Merkle hashes of the entries; rebuilt when it is missing
//	checkpoints           signed tree heads, each followed by an empty line
//	reserve               disk space given up in an emergency
//	lock                  held by the process that writes
//
// Each entry line is one leaf of an RFC 6962 Merkle tree (x/mod/sumdb/tlog).
// The tree of the first n entries is named by its root; a checkpoint is a
// signed note (x/mod/sumdb/note) with the log's origin, n and that root.
// A segment's header repeats the number of its first entry and the root of
// the tree before it, so that it can stand nowhere else.
//
// # What is trusted at start
//
// The entries are the truth. Stored hashes are used only for the entries
// before the newest segment, and only after their root equals the one in that
// segment's header; the newest segment is hashed again. Stored hashes are
// written after the entries they cover are synced, so an entry whose hash is
// stored was acknowledged: when it is gone or different, Open refuses.
//
// # Limits
//
// Entries after the last checkpoint are protected against accidents only;
// while a signer is set that is about one second of entries. Cutting the log
// and the checkpoints file back together to an older checkpoint shows only
// against a checkpoint that was kept elsewhere: see Log.CheckAgainst and
// VerifyOptions.Checkpoints.
//
// The package is not for deciding who may do what, for HTTP, or for
// delivering entries to other systems; delivery reads the files through Read.
package audit

import "errors"

// Errors that tell what is wrong with a log on disk. They come wrapped with
// the file, the entry and what to do.
var (
	// ErrDamaged: entries that were acknowledged are missing or changed.
	ErrDamaged = errors.New("audit log damaged")
	// ErrBehind: the log does not contain what a checkpoint says it contained.
	ErrBehind = errors.New("audit log does not reach its checkpoint")
	// ErrForeign: the directory belongs to a log of another origin, or is in
	// use by another process.
	ErrForeign = errors.New("audit log belongs to another server")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("audit log is closed")
)
