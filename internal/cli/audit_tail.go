package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/audit"
)

// tailFlags are the flags of audit tail.
type tailFlags struct {
	follow               bool
	last                 int
	request, path, event string
	denied               bool
}

func (s *shell) auditTailCommand() *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use: "tail DIRECTORY", Args: exactly(1), ValidArgsFunction: completeDirectory,
		Short: "Show the newest entries of the audit log, and with -f those that follow.",
		Long: `Show the newest entries of the audit log, from its files. It proves nothing: see
coffer audit verify. With -format=json each entry is an object on a line of
its own. A request has an intent before it may change something, and an outcome.`,
		Example: "  coffer audit tail -n=20 /var/lib/coffer/audit\n  coffer audit tail -f -denied /var/lib/coffer/audit\n  coffer audit tail -format=json -request=7b2f4a7e-31a8-4b8b-8d2f-0c6f1f4f1c55 /var/lib/coffer/audit",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.last < 0 {
				return usage("-n is a number of entries, or 0 for all")
			}
			dir, err := logDirectory(args[0])
			if err != nil {
				return err
			}
			return s.tail(cmd.Context(), dir, &f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with new entries, until it is stopped")
	flags.IntVarP(&f.last, "lines", "n", 10, "how many entries; 0 for all")
	flags.StringVar(&f.request, "request", "", "only entries of this request")
	flags.StringVar(&f.path, "path", "", "only entries of paths that begin so")
	flags.StringVar(&f.event, "event", "", "only entries of this event, for example unseal")
	flags.BoolVar(&f.denied, "denied", false, "only what was denied")
	return cmd
}

// wants reports whether an entry is one that was asked for.
func (f *tailFlags) wants(e *audit.Entry) bool {
	return (f.request == "" || e.Request.ID == f.request) &&
		strings.HasPrefix(e.Request.Path, f.path) &&
		(f.event == "" || e.Event == f.event) &&
		(!f.denied || e.Decision != nil && !e.Decision.Allowed)
}

// chooses reports whether not every entry is wanted.
func (f *tailFlags) chooses() bool {
	return f.request != "" || f.path != "" || f.event != "" || f.denied
}

func (s *shell) tail(ctx context.Context, dir string, f *tailFlags) error {
	newest, err := audit.Newest(dir)
	if err != nil {
		return err
	}
	// What is all wanted can be counted from the end.
	from := uint64(1)
	if n := uint64(f.last); n > 0 && !f.chooses() && newest > n {
		from = newest - n + 1
	}
	var ring []audit.Entry
	for e, err := range audit.Read(ctx, dir, audit.ReadOptions{From: from, Filter: f.wants}) {
		if err != nil {
			return unreadable(err)
		}
		if e.Seq > newest {
			break
		}
		if f.last == 0 {
			if err := s.entry(&e); err != nil {
				return err
			}
			continue
		}
		if ring = append(ring, e); len(ring) > f.last {
			ring = ring[1:]
		}
	}
	for i := range ring {
		if err := s.entry(&ring[i]); err != nil {
			return err
		}
	}
	if !f.follow {
		return nil
	}
	// Stopping it is how it ends, and no failure.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	for e, err := range audit.Read(ctx, dir, audit.ReadOptions{From: newest + 1, Filter: f.wants, Follow: true}) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return unreadable(err)
		}
		if err := s.entry(&e); err != nil {
			return err
		}
	}
	return nil
}

// unreadable says what to do about a log that cannot be read on.
func unreadable(err error) error {
	if errors.Is(err, audit.ErrDamaged) {
		return fmt.Errorf("%w; coffer audit verify says what is wrong", err)
	}
	return err
}

// entry prints one entry.
func (s *shell) entry(e *audit.Entry) error {
	if s.global.field != "" {
		return s.fieldOfEntry(e)
	}
	switch s.format() {
	case "json":
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.Stdout, escapeControls(string(line)))
		return err
	case "yaml":
		line, err := json.Marshal([]*audit.Entry{e})
		if err != nil {
			return err
		}
		return s.document(line)
	}
	_, err := fmt.Fprintln(s.Stdout, printable(entryLine(e)))
	return err
}

func (s *shell) fieldOfEntry(e *audit.Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return err
	}
	if _, ok := fields[s.global.field]; !ok {
		return nil // entries have those fields that they need
	}
	if err := s.showField(fields); err != nil || s.Terminal {
		return err
	}
	_, err = fmt.Fprintln(s.Stdout)
	return err
}

// entryLine is an entry for people, on one line.
func entryLine(e *audit.Entry) string {
	words := []string{e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), "#" + strconv.FormatUint(e.Seq, 10), string(e.Type)}
	add := func(format string, value string) {
		if value != "" {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	add("%s", e.Event)
	if e.Status != 0 {
		words = append(words, strconv.Itoa(e.Status))
	}
	add("%s", e.Request.Operation)
	add("%s", e.Request.Path)
	if e.Subject.Version != 0 {
		words = append(words, "version "+strconv.Itoa(e.Subject.Version))
	}
	add("label %s", e.Subject.Label)
	add("by %s", e.Principal.DisplayName)
	if a := e.Request.RemoteAddress; a != "" {
		words = append(words, "from "+net.JoinHostPort(a, strconv.Itoa(e.Request.RemotePort)))
	}
	if e.DurationUS > 0 {
		words = append(words, "in "+(time.Duration(e.DurationUS)*time.Microsecond).String())
	}
	if d := e.Decision; d != nil && !d.Allowed {
		words = append(words, "DENIED:")
		add("%s", d.Missing)
	}
	add("error=%q", e.Error)
	add("request=%s", e.Request.ID)
	return strings.Join(words, " ")
}
