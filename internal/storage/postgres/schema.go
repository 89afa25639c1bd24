package postgres

import (
	"fmt"
	"strings"
)

// migration leads from one format of the tables to the next, in one transaction
// with the change of the head row.
type migration struct {
	// readableBy is the oldest format whose Coffer may go on using the store
	// afterwards: the release before works beside this one during a rolling
	// upgrade.
	readableBy int
	statements func(prefix string) []string
}

// migrations are all of them, in order: the first makes format 1 of nothing.
var migrations = []migration{{readableBy: 1, statements: createTables}}

// createTables makes format 1.
//
// rows is the present state. changes is what the newest commits put, or
// deleted where value is null. commits has a row for each transaction that
// moved the revision: it gave the revisions from first to rev, its id is batch,
// and bytes counts the changes of it and of all before it. head is one row: the
// newest commit, and which versions of Coffer may use the store.
func createTables(prefix string) []string {
	return []string{
		`CREATE TABLE ` + prefix + `_head (
			id smallint NOT NULL PRIMARY KEY,
			format integer NOT NULL,
			readable_by integer NOT NULL,
			rev bigint NOT NULL,
			batch bytea NOT NULL,
			bytes bigint NOT NULL)`,
		`CREATE TABLE ` + prefix + `_rows (
			key bytea NOT NULL PRIMARY KEY,
			value bytea NOT NULL)`,
		`CREATE TABLE ` + prefix + `_changes (
			rev bigint NOT NULL,
			key bytea NOT NULL,
			value bytea,
			PRIMARY KEY (rev, key))`,
		`CREATE TABLE ` + prefix + `_commits (
			rev bigint NOT NULL PRIMARY KEY,
			first bigint NOT NULL,
			batch bytea NOT NULL,
			at timestamp with time zone NOT NULL,
			bytes bigint NOT NULL)`,
		`INSERT INTO ` + prefix + `_commits (rev, first, batch, at, bytes) VALUES (0, 0, '\x00', CURRENT_TIMESTAMP, 0)`,
		`INSERT INTO ` + prefix + `_head (id, format, readable_by, rev, batch, bytes) VALUES (1, 0, 0, 0, '\x00', 0)`,
	}
}

// statements are the texts of all that is sent, with the tables' names in them.
type statements struct {
	channel string // of notifications

	head, lockHead, format, setFormat              string
	get, getMany                                   string
	scan, scanToEnd, names, namesToEnd             string
	putRows, deleteRows, putChanges, putCommit     string
	moveHead, fenceHead, fenceCommit, findCommit   string
	chain, changedKeys, tail, pageEnd, pageChanges string
	pruneTo, pruneStep, pruneChanges, pruneCommits string
	notify                                         string
	mayRead, mayWrite                              []string
}

// page is the last revision of the page of commits after revision $1 that $2
// bytes bound.
const page = `COALESCE(
	(SELECT max(rev) FROM {commits} WHERE rev > $1 AND bytes <= $2 + (SELECT min(bytes) FROM {commits} WHERE rev >= $1)),
	(SELECT min(rev) FROM {commits} WHERE rev > $1))`

// newStatements returns the statements for tables that begin with prefix.
func newStatements(prefix string) statements {
	fill := func(text string) string {
		return strings.NewReplacer(
			"{head}", prefix+"_head", "{rows}", prefix+"_rows",
			"{changes}", prefix+"_changes", "{commits}", prefix+"_commits",
		).Replace(strings.ReplaceAll(text, "{page}", page))
	}
	s := statements{
		channel:   strings.ReplaceAll(prefix, ".", "_") + "_changes",
		head:      fill(`SELECT rev, batch FROM {head} WHERE id = 1`),
		lockHead:  fill(`SELECT rev, batch FROM {head} WHERE id = 1 FOR UPDATE`),
		format:    fill(`SELECT format, readable_by FROM {head} WHERE id = 1`),
		setFormat: fill(`UPDATE {head} SET format = $1, readable_by = $2 WHERE id = 1`),

		get:     fill(`SELECT value FROM {rows} WHERE key = $1`),
		getMany: fill(`SELECT key, value FROM {rows} WHERE key = ANY($1)`),
		scan:    fill(`SELECT key, value FROM {rows} WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3`),
		// The first key of each name: past "a/" the next key to look at is the
		// first that is not below it. 2f is "/", and 30 the byte after it.
		names: fill(`WITH RECURSIVE found (key) AS (
			(SELECT key FROM {rows} WHERE key >= $1 AND key < $2 ORDER BY key LIMIT 1)
			UNION ALL
			SELECT (SELECT r.key FROM {rows} r WHERE r.key < $2 AND r.key >=
				CASE WHEN position('\x2f'::bytea IN substring(f.key FROM $4::integer + 1)) = 0 THEN f.key || '\x00'::bytea
				ELSE substring(f.key FROM 1 FOR $4::integer + position('\x2f'::bytea IN substring(f.key FROM $4::integer + 1)) - 1) || '\x30'::bytea END
				ORDER BY r.key LIMIT 1)
			FROM found f WHERE f.key IS NOT NULL)
			SELECT key FROM found WHERE key IS NOT NULL LIMIT $3`),

		putRows: fill(`INSERT INTO {rows} (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[])
			ON CONFLICT (key) DO UPDATE SET value = excluded.value`),
		deleteRows: fill(`DELETE FROM {rows} WHERE key = ANY($1)`),
		putChanges: fill(`INSERT INTO {changes} (rev, key, value) SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[])`),
		putCommit: fill(`INSERT INTO {commits} (rev, first, batch, at, bytes)
			SELECT rev, $1, batch, CURRENT_TIMESTAMP, bytes FROM {head} WHERE id = 1`),
		// Fails, by a number that is none, when the head is not where it is thought
		// to be: the statements after it are then not run. The text is for the
		// server's log.
		moveHead: fill(`UPDATE {head} SET batch = $4, bytes = bytes + $5,
			rev = CASE WHEN rev = $1 AND batch = $2 THEN $3::bigint 
			ELSE CAST('no harm: another Coffer node has committed ' || CAST(rev AS text) AS bigint) END WHERE id = 1`),
		fenceHead: fill(`UPDATE {head} SET rev = rev + 1, batch = $1 WHERE id = 1`),
		fenceCommit: fill(`INSERT INTO {commits} (rev, first, batch, at, bytes)
			SELECT rev, rev, batch, CURRENT_TIMESTAMP, bytes FROM {head} WHERE id = 1`),
		findCommit: fill(`SELECT (SELECT min(first) FROM {commits}),
			(SELECT count(*) FROM {commits} WHERE rev = $1 AND batch = $2)`),

		chain:       fill(`SELECT rev, batch FROM {commits} WHERE rev >= $1 ORDER BY rev LIMIT $2`),
		changedKeys: fill(`SELECT rev, key FROM {changes} WHERE rev > $1 ORDER BY rev LIMIT $2`),
		tail: fill(`SELECT rev, batch, (SELECT min(first) FROM {commits}), (SELECT batch FROM {commits} WHERE rev = $1)
			FROM {head} WHERE id = 1`),
		// The page after $1: as many whole commits as $2 bytes hold, at least one.
		pageEnd:     fill(`SELECT rev, batch FROM {commits} WHERE rev = {page}`),
		pageChanges: fill(`SELECT rev, key, value FROM {changes} WHERE rev > $1 AND rev <= {page} ORDER BY rev, key`),

		pruneTo: fill(`SELECT COALESCE(max(c.rev), -1) FROM {commits} c, {head} h WHERE h.id = 1 AND c.rev < h.rev
			AND (c.bytes < h.bytes - $1 OR c.at < CURRENT_TIMESTAMP - $2::bigint * interval '1 second')`),
		pruneStep:    fill(`SELECT COALESCE(max(rev), -1) FROM (SELECT rev FROM {commits} WHERE rev <= $1 ORDER BY rev LIMIT 200) c`),
		pruneChanges: fill(`DELETE FROM {changes} WHERE rev <= $1`),
		pruneCommits: fill(`DELETE FROM {commits} WHERE rev <= $1`),
		notify:       `SELECT pg_notify($1, '')`,
	}
	s.scanToEnd = strings.Replace(s.scan, "AND key < $2", "AND $2::bytea IS NULL", 1)
	s.namesToEnd = strings.NewReplacer("AND key < $2", "AND $2::bytea IS NULL", "r.key < $2 AND", "").Replace(s.names)
	for _, table := range []string{"head", "rows", "changes", "commits"} {
		s.mayRead = append(s.mayRead, fmt.Sprintf(`SELECT 1 FROM %s_%s WHERE false`, prefix, table))
	}
	// They touch no row; the rights are looked at all the same.
	for _, text := range []string{
		`UPDATE {head} SET rev = rev WHERE false`,
		`INSERT INTO {rows} (key, value) SELECT key, value FROM {rows} WHERE false`,
		`UPDATE {rows} SET value = value WHERE false`,
		`DELETE FROM {rows} WHERE false`,
		`INSERT INTO {changes} (rev, key) SELECT rev, key FROM {changes} WHERE false`,
		`DELETE FROM {changes} WHERE false`,
		`INSERT INTO {commits} (rev, first, batch, at, bytes) SELECT rev, first, batch, at, bytes FROM {commits} WHERE false`,
		`DELETE FROM {commits} WHERE false`,
	} {
		s.mayWrite = append(s.mayWrite, fill(text))
	}
	return s
}
