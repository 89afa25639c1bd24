package pebble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	lsm "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cofferhq/coffer/internal/storage"
)

// Kind declares the engine.
var Kind = storage.Kind{
	Name: "pebble",
	Doc: "Embedded storage in one directory, for one server. " +
		"path: the directory, made when absent. " +
		"cache_size: memory for blocks read from disk, such as 160MiB (the default).",
	Open: func(ctx context.Context, settings map[string]string, log *slog.Logger) (storage.Engine, error) {
		o, err := parse(settings)
		if err != nil {
			return nil, err
		}
		o.Logger = log
		return Open(ctx, o)
	},
}

// defaultCache is the size of the block cache in bytes.
const defaultCache = 160 << 20

// Options say where and how to open a store.
type Options struct {
	Path      string       // the directory
	CacheSize int64        // bytes; 0 is 160 MiB
	Logger    *slog.Logger // nil is slog.Default

	fs vfs.FS // replaced by tests
}

func (o Options) withDefaults() Options {
	o.Path = filepath.Clean(o.Path)
	if o.CacheSize == 0 {
		o.CacheSize = defaultCache
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	return o
}

func parse(settings map[string]string) (Options, error) {
	var o Options
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := settings[name]
		switch name {
		case "path":
			o.Path = value
		case "cache_size":
			size, err := parseSize(value)
			if err != nil {
				return Options{}, fmt.Errorf("cache_size: %w", err)
			}
			o.CacheSize = size
		default:
			return Options{}, fmt.Errorf("%s: storage \"pebble\" has no such setting; it has path and cache_size", name)
		}
	}
	if o.Path == "" {
		return Options{}, errors.New("path: storage \"pebble\" needs a directory")
	}
	return o, nil
}

// parseSize reads bytes, or a whole number of KiB, MiB or GiB; at least 1 MiB.
func parseSize(text string) (int64, error) {
	number, unit := strings.TrimSpace(text), int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(rest), factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	if n*unit < 1<<20 {
		return 0, fmt.Errorf("%q is less than 1MiB", text)
	}
	return n * unit, nil
}

// tuning is for rows of some kilobytes on a machine with few cores, where the
// store shares its memory with the server. Numbers are bytes.
func tuning(o Options, e *Engine, lock *lsm.Lock) *lsm.Options {
	// Four memtables at most, so 64 MiB of memory and of log to replay.
	const memtable = 16 << 20
	p := &lsm.Options{
		FS:                          guarded(o.fs, e),
		Lock:                        lock,
		Logger:                      pebbleLog{o.Logger, e},
		EventListener:               e.listener(),
		FormatMajorVersion:          lsm.FormatTableFormatV6,
		CacheSize:                   o.CacheSize,
		MemTableSize:                memtable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                1000,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
	}
	for i := range p.Levels {
		p.Levels[i].BlockSize = 8 << 10
		p.Levels[i].IndexBlockSize = 64 << 10
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		p.Levels[i].FilterType = lsm.TableFilter
		// Values are encrypted before they come here; they do not shrink.
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return block.NoCompression }
		p.TargetFileSizes[i] = 8 << 20
	}
	return p
}

// listener notices what Pebble cannot return from a call.
func (e *Engine) listener() *lsm.EventListener {
	return &lsm.EventListener{
		BackgroundError: func(err error) {
			e.log.Error("storage background work failed; it is tried again", "dir", e.dir, "error", full(err))
			if errors.Is(full(err), storage.ErrFull) {
				e.space.give()
			} else if flush := e.flushErr.Load(); flush != nil && *flush != nil && errors.Is(err, *flush) {
				// Commits that cannot leave memory would in the end block every Update.
				e.fail("memory cannot be written to tables", err)
			}
		},
		// Pebble also calls a flush of nothing an error, so this alone is no
		// failure: a real one goes to BackgroundError afterwards.
		FlushEnd: func(info lsm.FlushInfo) { e.flushErr.Store(&info.Err) },
		DataCorruption: func(info lsm.DataCorruptionInfo) {
			e.log.Error("storage is damaged; restore a backup", "dir", e.dir, "file", info.Path, "error", info.Details)
		},
		WriteStallBegin: func(info lsm.WriteStallBeginInfo) {
			e.log.Warn("storage holds writes back until the disk has caught up", "dir", e.dir, "reason", info.Reason)
		},
		WriteStallEnd: func() { e.log.Info("storage accepts writes again", "dir", e.dir) },
	}
}
