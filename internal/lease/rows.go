package lease

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/job"
	"github.com/cofferhq/coffer/internal/storage"
)

// Prefix is where the rows of this package are: of leases by their keys, and what
// they are found by, which are empty rows.
const Prefix = "core/leases/"

const (
	rowPrefix     = Prefix + "row/"     // + key: a Lease
	tokenPrefix   = Prefix + "token/"   // + the token's id + "/" + key
	entityPrefix  = Prefix + "entity/"  // + the entity's id + "/" + key
	troublePrefix = Prefix + "trouble/" // + key, of leases that could not be taken back yet
)

// keys is how many keys add, end and drop write at most, the job's and the counts
// included.
const keys = job.Keys + 4 + countKeys

// piece is how many leases one Update can change, with the rows that go with them.
const piece = (storage.MaxUpdateKeys - 1) / keys

func rowKey(key string) string        { return rowPrefix + key }
func tokenKey(id, key string) string  { return tokenPrefix + id + "/" + key }
func entityKey(id, key string) string { return entityPrefix + id + "/" + key }
func troubleKey(key string) string    { return troublePrefix + key }

// add writes a new lease, and makes its end due.
func (b *Book) add(t storage.Txn, l *Lease) error {
	if l.Token != "" {
		if err := t.Put(tokenKey(l.Token, l.Key), nil); err != nil {
			return err
		}
	}
	if l.Entity != "" {
		if err := t.Put(entityKey(l.Entity, l.Key), nil); err != nil {
			return err
		}
	}
	if err := b.queue.Schedule(t, l.Key, l.Expires); err != nil {
		return err
	}
	return put(t, l)
}

// put writes a lease's row, and counts it as what it is now.
func put(t storage.Txn, l *Lease) error {
	if err := recount(t, l, false); err != nil {
		return err
	}
	row, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return t.Put(rowKey(l.Key), row)
}

// end marks a lease as ending, and makes it due at a time.
func (b *Book) end(t storage.Txn, l *Lease, why string, at time.Time) error {
	switch now := time.Now().UTC(); {
	case l.Ending == nil:
		l.Ending = &Ending{Why: why, Since: now}
	case l.Ending.Aside: // it is tried anew; its last error stays until then
		l.Ending.Aside, l.Ending.Since, l.Ending.Refused, l.Ending.Away = false, now, 0, 0
	default:
		return b.queue.Schedule(t, l.Key, at)
	}
	if err := put(t, l); err != nil {
		return err
	}
	return b.queue.Schedule(t, l.Key, at)
}

// drop deletes the rows of a lease, all but the job's.
func drop(t storage.Txn, l *Lease) error {
	if err := recount(t, l, true); err != nil {
		return err
	}
	rows := []string{rowKey(l.Key)}
	if l.Token != "" {
		rows = append(rows, tokenKey(l.Token, l.Key))
	}
	if l.Entity != "" {
		rows = append(rows, entityKey(l.Entity, l.Key))
	}
	if e := l.Ending; e != nil && e.Error != "" {
		rows = append(rows, troubleKey(l.Key))
	}
	for _, row := range rows {
		if err := t.Delete(row); err != nil {
			return err
		}
	}
	return nil
}

// page returns up to limit leases whose keys begin with prefix and sort after one.
func page(r storage.Reader, prefix, after string, limit int) ([]*Lease, error) {
	if after != "" {
		after = rowKey(after)
	}
	rows, err := r.Scan(rowKey(prefix), after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]*Lease, len(rows))
	for i, row := range rows {
		if out[i], err = decode(strings.TrimPrefix(row.Key, rowPrefix), row.Value); err != nil {
			return nil, err
		}
	}
	return out, nil
}
