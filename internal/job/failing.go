package job

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// failure is the row of a job that failed.
type failure struct {
	Tries int       `json:"tries"`
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Failing is a job that failed and is tried again.
type Failing struct {
	ID    string
	Tries int       // how often it failed since it was scheduled
	At    time.Time // when it failed last
	Error string    // why, in up to 256 bytes
	Next  time.Time // when it is tried again
}

// Failing returns, in the order of their ids, up to limit of the jobs whose last
// try failed, those after an id; "" is from the first.
func (q *Queue) Failing(ctx context.Context, after string, limit int) ([]Failing, error) {
	var found []Failing
	err := q.w.Engine.View(ctx, func(r storage.Reader) error {
		found = nil
		prefix := q.keys.failed("")
		from := ""
		if after != "" {
			from = prefix + after
		}
		rows, err := r.Scan(prefix, from, limit)
		if err != nil {
			return err
		}
		for _, row := range rows {
			var f failure
			if err := json.Unmarshal(row.Value, &f); err != nil {
				return fmt.Errorf("row %q: %w", row.Key, err)
			}
			id := strings.TrimPrefix(row.Key, prefix)
			p, err := q.keys.find(r, id)
			if err != nil {
				return err
			}
			if p == nil {
				return fmt.Errorf("row %q is of no job", row.Key)
			}
			found = append(found, Failing{ID: id, Tries: f.Tries, At: f.At, Error: f.Error, Next: p.time()})
		}
		return nil
	})
	return found, err
}
