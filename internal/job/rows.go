package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Prefix is where all rows of this package are.
const Prefix = "core/jobs/"

const nodePrefix = Prefix + "node/" // + node: a node that works

// Rows of a kind, below Prefix + "kind/NAME/".
type keys struct{ kind string }

func newKeys(kind string) keys { return keys{Prefix + "kind/" + kind + "/"} }

// job is the row that says where in the index a job stands: a place.
func (k keys) job(id string) string { return k.kind + "job/" + id }

// index is what stands before the keys of a shard's jobs, which sort by time.
func (k keys) index(shard int) string { return k.kind + "due/" + shardText(shard) + "/" }

// due is a job's key in the index; its row is the number of tries, if any.
func (k keys) due(id string, due int64) string {
	return k.index(shardOf(id)) + dueText(due) + "/" + id
}

// failed is the row of a job that failed: a failure.
func (k keys) failed(id string) string { return k.kind + "failed/" + id }

// claims is what stands before the keys of claims.
func (k keys) claims() string { return k.kind + "claim/" }

// claim is the row of a shard's claim: a claimRow.
func (k keys) claim(shard int) string { return k.claims() + shardText(shard) }

func shardText(shard int) string { return fmt.Sprintf("%02x", shard) }

func shardOf(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return int(h.Sum32() % Shards)
}

const dueDigits = 19 // of nanoseconds until 2262

func dueText(due int64) string {
	text := strconv.FormatInt(due, 10)
	return "0000000000000000000"[:dueDigits-len(text)] + text
}

// find returns where a job stands, nil when there is none.
func (k keys) find(r storage.Reader, id string) (*place, error) {
	row, err := r.Get(k.job(id))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p place
	due, tries, _ := strings.Cut(string(row), " ")
	p.due, err = strconv.ParseInt(due, 10, 64)
	if err == nil {
		p.tries, err = strconv.Atoi(tries)
	}
	if err != nil {
		return nil, fmt.Errorf("row %q: %w", k.job(id), err)
	}
	return &p, nil
}

func (k keys) put(t storage.Txn, id string, p place) error {
	if err := t.Put(k.job(id), []byte(p.String())); err != nil {
		return err
	}
	var row []byte
	if p.tries > 0 {
		row = strconv.AppendInt(nil, int64(p.tries), 10)
	}
	return t.Put(k.due(id, p.due), row)
}

func (k keys) remove(t storage.Txn, id string, p place) error {
	if p.tries > 0 {
		if err := t.Delete(k.failed(id)); err != nil {
			return err
		}
	}
	if err := t.Delete(k.due(id, p.due)); err != nil {
		return err
	}
	return t.Delete(k.job(id))
}

// first returns the jobs of a shard that are due now, up to limit, and when the
// next one is due, if that is known and there is one.
func (k keys) first(r storage.Reader, shard, limit int, now time.Time) (jobs []Job, next time.Time, err error) {
	prefix := k.index(shard)
	rows, err := r.Scan(prefix, "", limit)
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, row := range rows {
		j, err := parseDue(strings.TrimPrefix(row.Key, prefix), row.Value)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("row %q: %w", row.Key, err)
		}
		if j.Due.After(now) {
			return jobs, j.Due, nil
		}
		jobs = append(jobs, j)
	}
	return jobs, time.Time{}, nil
}

// parseDue reads an index key, without what stands before it, and its row.
func parseDue(key string, row []byte) (j Job, err error) {
	due, id, found := strings.Cut(key, "/")
	if !found {
		return j, errors.New("not a due time and an id")
	}
	n, err := strconv.ParseInt(due, 10, 64)
	if err != nil {
		return j, err
	}
	j.ID, j.Due = id, time.Unix(0, n).UTC()
	if len(row) > 0 {
		j.Tries, err = strconv.Atoi(string(row))
	}
	return j, err
}

// claimRow is who holds a shard.
type claimRow struct {
	Node    string `json:"node,omitempty"` // for those who look
	Session string `json:"session,omitempty"`
	Fence   uint64 `json:"fence"` // grows with each change of hands
}

func getClaim(r storage.Reader, key string) (c claimRow, err error) {
	row, err := r.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return claimRow{}, nil
	}
	if err == nil {
		err = json.Unmarshal(row, &c)
	}
	if err != nil {
		return c, fmt.Errorf("row %q: %w", key, err)
	}
	return c, nil
}

// allClaims returns the claims of all shards, empty where there is none yet.
func (k keys) allClaims(r storage.Reader) (all [Shards]claimRow, err error) {
	rows, err := r.Scan(k.claims(), "", Shards)
	if err != nil {
		return all, err
	}
	for _, row := range rows {
		shard, err := strconv.ParseUint(strings.TrimPrefix(row.Key, k.claims()), 16, 8)
		if err == nil && shard < Shards {
			err = json.Unmarshal(row.Value, &all[shard])
		}
		if err != nil {
			return all, fmt.Errorf("row %q: %w", row.Key, err)
		}
	}
	return all, nil
}

func putJSON[T any](t storage.Txn, key string, row T) error {
	text, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return t.Put(key, text)
}
