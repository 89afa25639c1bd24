package history_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/history"
)

func commit(rev storage.Revision, size int) storage.Commit {
	return storage.Commit{Revision: rev, Changes: []storage.Change{{Key: "k", Value: make([]byte, size)}}}
}

var errEnough = errors.New("enough")

// from returns the revisions that a watch from rev is told.
func from(l *history.Log, rev storage.Revision) (told []storage.Revision, err error) {
	last := l.Last()
	err = l.Watch(context.Background(), "", rev, func(c storage.Commit) error {
		if len(c.Changes) > 0 {
			told = append(told, c.Revision)
		}
		if c.Revision == last {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return told, err
}

func TestBounds(t *testing.T) {
	tests := []struct {
		name                 string
		maxCommits, maxBytes int
		size                 int
		oldest               storage.Revision // the oldest that a watch can begin at, after commits 11 to 20
	}{
		{"all", 10, 1 << 20, 1, 10},
		{"count", 9, 1 << 20, 1, 11},
		{"one", 1, 1 << 20, 1, 19},
		{"bytes", 100, 3 * 10, 9, 17},
		{"one too large", 100, 1, 100, 19},
	}
	for _, tt := range tests {
		l := history.New(10, tt.maxCommits, tt.maxBytes)
		for rev := storage.Revision(11); rev <= 20; rev++ {
			l.Append(commit(rev, tt.size))
		}
		if _, err := from(l, tt.oldest-1); !errors.Is(err, storage.ErrHistoryGone) {
			t.Errorf("%s: from %d: %v", tt.name, tt.oldest-1, err)
		}
		told, err := from(l, tt.oldest)
		if err != nil || len(told) != int(20-tt.oldest) {
			t.Errorf("%s: from %d: %v, %v", tt.name, tt.oldest, told, err)
		}
		if _, err := from(l, 21); !errors.Is(err, storage.ErrHistoryGone) {
			t.Errorf("%s: from the future: %v", tt.name, err)
		}
	}
}

// TestPages: more commits than a watch takes at a time are told without a gap.
func TestPages(t *testing.T) {
	for _, n := range []storage.Revision{63, 64, 65, 128, 1000} {
		l := history.New(0, 10_000, 1<<20)
		for rev := storage.Revision(1); rev <= n; rev++ {
			l.Append(commit(rev, 1))
		}
		told, err := from(l, 0)
		if err != nil || len(told) != int(n) {
			t.Fatalf("%d commits: %d told, %v", n, len(told), err)
		}
		for i, rev := range told {
			if rev != storage.Revision(i+1) {
				t.Fatalf("%d commits: number %d is %d", n, i, rev)
			}
		}
	}
}

func TestClose(t *testing.T) {
	l := history.New(0, 1, 1)
	mine := fmt.Errorf("mine")
	l.Close(mine)
	l.Append(commit(1, 1))
	if err := l.Watch(context.Background(), "", 0, nil); err != mine {
		t.Error(err)
	}
}
