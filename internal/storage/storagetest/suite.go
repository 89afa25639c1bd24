// Package storagetest proves storage engines against the contract of package
// storage. An engine's own tests call Run, and Main from TestMain. It knows no
// engine; what only one engine promises is tested beside that engine.
package storagetest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Options say what is tested.
type Options struct {
	// New makes a new, empty store and returns a function that opens it. The
	// suite closes what it opens, and opens a store again only when Persistent.
	New func(t testing.TB) Opener
	// Persistent: what was committed is there when the store is opened again.
	Persistent bool
	// Location names a new, empty store that a child process can open with the
	// function given to Main; the suite kills that process. nil leaves this out,
	// for engines that lose everything with their process.
	Location func(t testing.TB) string
	// OpenAt opens the store at a location; the same function is given to Main.
	OpenAt func(location string) (storage.Engine, error)
	// Disk makes a new disk that can fail. nil leaves this out, for engines
	// whose disk belongs to another server.
	Disk func(seed uint64) *Disk
	// Overhead is how many bytes the engine adds to each value of its own.
	Overhead int
	// Keys is the size of the large listing; 0 is 200,000.
	Keys int
}

// Opener opens one store.
type Opener func() (storage.Engine, error)

// Disk is a disk under a store, with the faults of a real one.
type Disk struct {
	Open  Opener
	Cut   func() *Disk        // the disk that is found after a power cut at this moment
	Slow  func(time.Duration) // every sync takes that much longer
	Full  func(bool)          // no free space, or space again
	Break func(bool)          // every sync fails, or none
}

// Run runs the suite.
func Run(t *testing.T, o Options) {
	if o.Keys == 0 {
		o.Keys = 200_000
	}
	tests := []struct {
		name string
		when bool
		run  func(*testing.T, Options)
	}{
		{"values", true, testValues},
		{"scan", true, testScan},
		{"list", true, testList},
		{"list cost", true, testListCost},
		{"limits", true, testLimits},
		{"own writes", true, testOwnWrites},
		{"errors write nothing", true, testErrorsWriteNothing},
		{"snapshot", true, testSnapshot},
		{"lost update", true, testLostUpdate},
		{"write skew", true, testWriteSkew},
		{"revisions", true, testRevisions},
		{"reader outside", true, testReaderOutside},
		{"sub", true, testSub},
		{"model", true, testModel},
		{"linearizable", true, testLinearizable},
		{"watch order", true, testWatchOrder},
		{"watch prefix", true, testWatchPrefix},
		{"watch past", true, testWatchPast},
		{"watch progress", true, testWatchProgress},
		{"watch ends", true, testWatchEnds},
		{"watch slow consumer", true, testWatchSlowConsumer},
		{"cancel", true, testCancel},
		{"close", true, testClose},
		{"reopen", o.Persistent, testReopen},
		{"kill", o.Location != nil, testKill},
		{"power cut", o.Disk != nil, testPowerCut},
		{"full disk", o.Disk != nil, testFullDisk},
		{"slow disk", o.Disk != nil, testSlowDisk},
		{"broken disk", o.Disk != nil, testBrokenDisk},
	}
	for _, tt := range tests {
		if tt.when {
			t.Run(tt.name, func(t *testing.T) { tt.run(t, o) })
		}
	}
}

// Rounds returns n, or many times n in a soak.
func Rounds(n int) int {
	if os.Getenv("COFFER_SOAK") == "1" {
		return 20 * n
	}
	return n
}

// open opens a new store that is closed when the test ends.
func open(t testing.TB, o Options) storage.Engine {
	t.Helper()
	return openFor(t, o.New(t))
}

func openFor(t testing.TB, opener Opener) storage.Engine {
	t.Helper()
	e, err := opener()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, storage.ErrClosed) && !errors.Is(err, storage.ErrFailed) {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// put commits pairs of key and value.
func put(t testing.TB, e storage.Engine, pairs ...string) storage.Revision {
	t.Helper()
	rev, err := e.Update(context.Background(), func(tx storage.Txn) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put(pairs[i], []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// remove commits deletions.
func remove(t testing.TB, e storage.Engine, keys ...string) storage.Revision {
	t.Helper()
	rev, err := e.Update(context.Background(), func(tx storage.Txn) error {
		for _, k := range keys {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// get returns the value of key, and whether there is one.
func get(t testing.TB, e storage.Engine, key string) (value string, found bool) {
	t.Helper()
	err := e.View(context.Background(), func(r storage.Reader) error {
		var err error
		value, found, err = read(r, key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value, found
}

func read(r storage.Reader, key string) (string, bool, error) {
	value, err := r.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return "", false, nil
	}
	return string(value), err == nil, err
}

// Value returns the value of key, "" where there is none.
func Value(r storage.Reader, key string) (string, error) {
	text, _, err := read(r, key)
	return text, err
}

// view runs fn in a View that must succeed.
func view(t testing.TB, e storage.Engine, fn func(r storage.Reader)) {
	t.Helper()
	err := e.View(context.Background(), func(r storage.Reader) error { fn(r); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

// count returns the number of keys below prefix.
func count(t testing.TB, e storage.Engine, prefix string) int {
	t.Helper()
	n := 0
	view(t, e, func(r storage.Reader) {
		err := storage.All(r, prefix, func(storage.Entry) error { n++; return nil })
		if err != nil {
			t.Error(err)
		}
	})
	return n
}
