package backup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Names of scheduled backups. Only files so named are ever removed.
const (
	namePrefix       = "coffer-"
	nameTime         = "20060102T150405Z"
	nameSuffix       = ".backup"
	unfinishedPrefix = ".coffer-backup-"
	unfinishedSuffix = ".unfinished"
)

var (
	finishedNames   = regexp.MustCompile(`^coffer-(\d{8}T\d{6}Z)-([0-9a-f]{1,8})-r(\d{1,20})\.backup$`)
	unfinishedNames = regexp.MustCompile(`^\.coffer-backup-[A-Z2-7]{26}\.unfinished$`)
)

// nameOf is the name of a scheduled backup's file: when, of which store, and of
// which revision.
func nameOf(h *Header) string {
	return fmt.Sprintf("%s%s-%s-r%d%s", namePrefix, h.Created.UTC().Format(nameTime), Fingerprint(&h.Seals), h.Revision, nameSuffix)
}

func unfinishedName() string { return unfinishedPrefix + rand.Text() + unfinishedSuffix }

// file is a scheduled backup in a directory.
type file struct {
	name     string
	made     time.Time
	revision storage.Revision
	size     uint64
}

// list returns the backups in a directory, the newest first.
func list(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []file
	for _, e := range entries {
		parts := finishedNames.FindStringSubmatch(e.Name())
		if parts == nil || !e.Type().IsRegular() {
			continue
		}
		made, err := time.Parse(nameTime, parts[1])
		if err != nil {
			continue
		}
		revision, err := strconv.ParseUint(parts[3], 10, 64)
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it was removed meanwhile
		}
		out = append(out, file{e.Name(), made, storage.Revision(revision), uint64(info.Size())})
	}
	slices.SortFunc(out, func(a, b file) int {
		if c := b.made.Compare(a.made); c != 0 {
			return c
		}
		return strings.Compare(b.name, a.name)
	})
	return out, nil
}

// retain removes the backups that a plan does not keep, and returns their names.
// The newest one always stays.
func retain(p Plan, now time.Time) (removed []string, err error) {
	files, err := list(p.Directory)
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		if i == 0 || (p.Keep == 0 || i < p.Keep) && (p.KeepFor == 0 || now.Sub(f.made) < p.KeepFor) {
			continue
		}
		if e := os.Remove(filepath.Join(p.Directory, f.name)); e != nil {
			err = errors.Join(err, e)
			continue
		}
		removed = append(removed, f.name)
	}
	return removed, err
}

// stillWritten is how old an unfinished file must be to be taken for one that a
// crash left: nodes may share the directory.
const stillWritten = 24 * time.Hour

// removeUnfinished removes what crashes left.
func removeUnfinished(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !unfinishedNames.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < stillWritten {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
