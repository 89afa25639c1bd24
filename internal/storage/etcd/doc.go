// Package etcd is the storage engine on an etcd cluster, for any number of nodes
// at once. It starts no cluster, manages none, and caches nothing: every snapshot
// begins with a linearizable read.
//
// Keys in etcd, below the path that the settings name:
//
//	format     what wrote the store and what can read it
//	head       put last by every commit: its ModRevision is the newest commit
//	data/KEY   the value of KEY
//
// # Why it is serializable
//
// A commit is one etcd transaction. It compares that everything its function read
// is still so: of each key that was found, or not found, the ModRevision, and of
// each interval that was read that no key in it is newer than the snapshot. A key
// that has gone from an interval fails its own comparison. What would take more
// comparisons than etcd allows in one transaction compares head instead: nothing
// at all was committed since. Where a comparison fails the function runs again on
// a newer snapshot, one Update of a node after the other, so that the Updates of
// one node do not keep each other from ending.
//
// # Why the feed neither loses nor reorders
//
// etcd tells changes in the order of its revisions, from any revision that it has
// not compacted. A commit is whole when the change of head has come. The feed says
// that it is current only when a linearizable read of head, sent every 100 ms, has
// found nothing newer than what the watch has told; so a watch that went silent,
// for whatever reason, is noticed, and begun anew.
//
// # What the operator decides
//
// etcd keeps every revision until it is compacted: members must run with
// --auto-compaction-retention, or fill up. A snapshot lives no longer than that
// retention.
package etcd
