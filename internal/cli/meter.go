package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/cofferhq/coffer/internal/backup"
)

// meter says on standard error how far a long work is.
type meter struct {
	to    io.Writer // nil says nothing
	what  string
	begun time.Time
	last  time.Time
}

// progress returns what says how far it is where a person sees it, or was asked to.
func (s *shell) progress(what string, asked bool) *meter {
	p := &meter{what: what, begun: time.Now(), last: time.Now()}
	if asked || s.watched() {
		p.to = s.Stderr
	}
	return p
}

// say is a backup.Watcher.
func (p *meter) say(now backup.Progress) {
	if p.to == nil || time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	p.line(now)
}

func (p *meter) line(now backup.Progress) {
	rate := uint64(float64(now.Bytes) / max(time.Since(p.begun).Seconds(), 0.001))
	fmt.Fprintf(p.to, "%s: %s, %s, %s/s\n", p.what, byteCount(now.Bytes), plural(now.Rows, "row"), byteCount(rate))
}

// done says how far it came.
func (p *meter) done(sum *backup.Summary) {
	if p.to != nil {
		p.line(backup.Progress{Bytes: sum.Bytes, Rows: sum.Rows})
	}
}

// byteCount is a size for people.
func byteCount(n uint64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	size := float64(n) / (1 << 10)
	for size >= 1<<10 && len(units) > 1 {
		size, units = size/(1<<10), units[1:]
	}
	return fmt.Sprintf("%.1f %s", size, units[0])
}
