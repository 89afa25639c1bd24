package pebble

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func openAt(dir string) (storage.Engine, error) {
	return Open(context.Background(), Options{Path: dir, Logger: quiet})
}

func TestMain(m *testing.M) {
	storagetest.Main(openAt)
	runChild()
	goleak.VerifyTestMain(m)
}

func TestEngine(t *testing.T) {
	storagetest.Run(t, storagetest.Options{
		New: func(t testing.TB) storagetest.Opener {
			dir := filepath.Join(t.TempDir(), "store")
			return func() (storage.Engine, error) { return openAt(dir) }
		},
		Persistent: true,
		Location:   func(t testing.TB) string { return filepath.Join(t.TempDir(), "store") },
		OpenAt:     openAt,
		Disk: func(seed uint64) *storagetest.Disk {
			return newFaultyDisk(vfs.NewCrashableMem(), rand.New(rand.NewPCG(seed, 7))).disk()
		},
	})
}

// faultyDisk is a disk in memory with the faults of a real one.
type faultyDisk struct {
	mem    *vfs.MemFS
	rng    *rand.Rand
	slow   atomic.Int64 // nanoseconds a sync of the log takes
	full   atomic.Bool
	broken atomic.Bool
}

func newFaultyDisk(mem *vfs.MemFS, rng *rand.Rand) *faultyDisk {
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 31})
	return &faultyDisk{mem: mem, rng: rng}
}

func (d *faultyDisk) disk() *storagetest.Disk {
	fs := errorfs.Wrap(d.mem, errorfs.InjectorFunc(d.inject))
	return &storagetest.Disk{
		Open: func() (storage.Engine, error) {
			return Open(context.Background(), Options{Path: "/data/store", Logger: quiet, fs: fs})
		},
		Cut: func() *storagetest.Disk {
			cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * d.rng.IntN(3), RNG: d.rng}
			return newFaultyDisk(d.mem.CrashClone(cfg), d.rng).disk()
		},
		Slow: func(by time.Duration) { d.slow.Store(int64(by)) },
		Full: func(full bool) {
			free := uint64(1 << 30)
			if full {
				free = 1 << 20
			}
			d.mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 31})
			d.full.Store(full)
		},
		Break: d.broken.Store,
	}
}

// inject makes an operation slow or lets it fail. On a full disk nothing can be
// written until the reserve is given up.
func (d *faultyDisk) inject(op errorfs.Op) error {
	sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
	if sync && strings.HasSuffix(op.Path, ".log") {
		time.Sleep(time.Duration(d.slow.Load()))
	}
	if sync && d.broken.Load() {
		return syscall.EIO
	}
	if op.Kind == errorfs.OpFileWrite && d.full.Load() {
		if _, err := d.mem.Stat("/data/store/" + reserveFile); !oserror.IsNotExist(err) {
			return syscall.ENOSPC
		}
	}
	return nil
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := openAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Update(context.Background(), func(tx storage.Txn) error { return tx.Put("k", nil) }); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		files++
		return nil
	})
	if err != nil || files < 6 {
		t.Errorf("%d files, %v", files, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSettings(t *testing.T) {
	tests := []struct {
		settings map[string]string
		want     string // in the error
	}{
		{map[string]string{}, "path"},
		{map[string]string{"path": "/x", "cashe_size": "1MiB"}, "cashe_size"},
		{map[string]string{"path": "/x", "cache_size": "much"}, "cache_size"},
		{map[string]string{"path": "/x", "cache_size": "-1MiB"}, "cache_size"},
		{map[string]string{"path": "/x", "cache_size": "1"}, "cache_size"},
		{map[string]string{"path": "/x", "cache_size": "99999999999GiB"}, "cache_size"},
	}
	for _, tt := range tests {
		if _, err := Kind.Open(context.Background(), tt.settings, quiet); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v", tt.settings, err)
		}
	}
	for text, want := range map[string]int64{"64MiB": 64 << 20, " 2 GiB ": 2 << 30, "1024KiB": 1 << 20, "2097152": 2 << 20} {
		o, err := parse(map[string]string{"path": "/x", "cache_size": text})
		if err != nil || o.CacheSize != want {
			t.Errorf("%q: %d, %v", text, o.CacheSize, err)
		}
	}
	e, err := Kind.Open(context.Background(), map[string]string{"path": t.TempDir(), "cache_size": "8MiB"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
