// Package etcd is the storage engine on an etcd cluster, for any number of nodes
// at once. It starts no cluster, manages none, and caches nothing: every snapshot
// begins with a linearizable read.
//
// Keys in etcd, below the path that the settings name:
//
//	format     what wrote the store and what can read it
//	head       put last by every commit, which it names: its ModRevision is the newest commit's
//	lock       there while one Update runs alone, for 10 s at most; its lease of 5 s is renewed
//	data/KEY   the value of KEY
//
// # Why it is serializable
//
// A commit is one etcd transaction. It compares that everything its function read
// is still so: of each key that was found, or not found, the ModRevision, and of
// each interval that was read that no key in it is newer than the snapshot. A key
// that has gone from an interval fails its own comparison. What would take more
// comparisons than etcd allows in one transaction compares head instead: nothing
// at all was committed since. So an Update may begin with rows that this node
// remembers, which saves asking for them: a commit that succeeds proves them true.
// Where a comparison fails the function runs again on a snapshot, with the rows
// that it read before fetched ahead, one Update of a node after the other. Where
// that fails eight times, or for 2.5 s, it takes the lock, whose absence every
// commit compares: no Update is kept from ending by others.
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
