package audit

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/cofferhq/coffer/internal/fault"
)

// ErrNoSigner: there is no checkpoint because nothing can sign it yet.
var ErrNoSigner = errors.New("no signer is set: the server is sealed")

// checkpointFile is the file of signed checkpoints, in the order of their
// sizes.
type checkpointFile struct {
	mu     sync.Mutex // held while one is signed and written
	path   string
	file   *os.File
	off    int64
	signer note.Signer
	last   Checkpoint // Size 0 when there is none
}

// openCheckpoints opens or makes the file, finds the newest checkpoint and
// cuts off a torn write after it.
func openCheckpoints(path string, signer note.Signer) (*checkpointFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c := &checkpointFile{path: path, file: file, signer: signer}
	content, err := io.ReadAll(file)
	if err == nil {
		notes, rest := splitNotes(content)
		c.off = int64(len(content) - len(rest))
		if len(notes) > 0 {
			c.last, err = ParseCheckpoint(notes[len(notes)-1].note)
		}
	}
	if err == nil && c.off < int64(len(content)) {
		err = file.Truncate(c.off)
	}
	if err != nil {
		file.Close()
		return nil, errors.Join(errors.New(path), err)
	}
	return c, nil
}

// add signs a checkpoint and writes it, when it is newer than the last.
func (c *checkpointFile) add(next Checkpoint, tell func(Checkpoint)) (Checkpoint, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if next.Size <= c.last.Size {
		return c.last, false, nil
	}
	if c.signer == nil {
		return Checkpoint{}, false, ErrNoSigner
	}
	next, err := signCheckpoint(next, c.signer)
	if err != nil {
		return Checkpoint{}, false, err
	}
	if err := c.reopenIfGone(); err != nil {
		return Checkpoint{}, false, err
	}
	block := append(append([]byte(nil), next.Note...), '\n')
	if _, err := c.file.WriteAt(block, c.off); err != nil {
		return Checkpoint{}, false, errors.Join(err, c.file.Truncate(c.off))
	}
	if err := syncData(c.file); err != nil {
		return Checkpoint{}, false, err
	}
	c.off += int64(len(block))
	c.last = next
	if tell != nil {
		tell(next)
	}
	return next, true, nil
}

// reopenIfGone makes the file again when others deleted or cut it. What it
// held is lost from here; the next checkpoint covers all entries again.
func (c *checkpointFile) reopenIfGone() error {
	var mine, there unix.Stat_t
	if err := unix.Fstat(int(c.file.Fd()), &mine); err != nil {
		return err
	}
	if err := unix.Stat(c.path, &there); err == nil && there.Ino == mine.Ino && there.Dev == mine.Dev {
		c.off = min(c.off, mine.Size)
		return nil
	}
	file, err := os.OpenFile(c.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	off, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		file.Close()
		return err
	}
	c.file.Close()
	c.file, c.off = file, off
	return nil
}

func (c *checkpointFile) close() error { return c.file.Close() }

// SetSigner gives the log the key for its checkpoints, or with nil takes it
// away when the server is sealed. Entries that had no checkpoint get one
// within Options.CheckpointEvery.
func (l *Log) SetSigner(signer note.Signer) {
	l.checkpoints.mu.Lock()
	l.checkpoints.signer = signer
	l.checkpoints.mu.Unlock()
	l.markDirty()
}

// Checkpoint makes a checkpoint of everything appended before the call, and
// returns it, or the last one when nothing was appended since. Without a
// signer it fails with ErrNoSigner.
func (l *Log) Checkpoint(ctx context.Context) (Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return Checkpoint{}, fault.From(err)
	}
	next := Checkpoint{Origin: l.options.Origin}
	err := l.do(func() error {
		if err := l.w.flush(); err != nil {
			return err
		}
		next.Size, next.Root = l.w.synced.tree.size, l.w.synced.tree.root()
		return nil
	})
	if err != nil {
		return Checkpoint{}, l.unavailable(err)
	}
	c, made, err := l.checkpoints.add(next, l.options.OnCheckpoint)
	if made {
		l.stats.checkpointed(c.Size)
	}
	return c, err
}

// LastCheckpoint returns the newest checkpoint; its Size is 0 when there is
// none.
func (l *Log) LastCheckpoint() Checkpoint {
	l.checkpoints.mu.Lock()
	defer l.checkpoints.mu.Unlock()
	return l.checkpoints.last
}

func (l *Log) markDirty() {
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

func (l *Log) markRotated() {
	select {
	case l.rotated <- struct{}{}:
	default:
	}
}

// keepCheckpoints is the checkpointer's goroutine: some time after the first
// entry without a checkpoint, and at every rotation, it makes one.
func (l *Log) keepCheckpoints() {
	defer close(l.stopped)
	for {
		select {
		case <-l.dirty:
		case <-l.stop:
			return
		}
		timer := time.NewTimer(l.options.CheckpointEvery)
		select {
		case <-timer.C:
		case <-l.rotated:
			timer.Stop()
		case <-l.stop:
			timer.Stop()
			return
		}
		_, err := l.Checkpoint(context.Background())
		if err != nil && !errors.Is(err, ErrNoSigner) {
			l.stats.checkpointFailed()
			l.options.Logger.Error("audit log: no checkpoint could be made", "error", err)
			l.markDirty()
		}
	}
}
