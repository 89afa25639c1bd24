package monitor_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/cofferhq/coffer/internal/monitor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// got returns the lines that wait.
func got(l *monitor.Listener) (lines []string) {
	for {
		select {
		case line := <-l.Lines():
			lines = append(lines, string(line))
		default:
			return lines
		}
	}
}

func TestListeners(t *testing.T) {
	var own bytes.Buffer
	tap := monitor.New(slog.NewTextHandler(&own, &slog.HandlerOptions{Level: slog.LevelWarn}))
	log := slog.New(tap)
	if log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("nobody listens, and what nobody wants is made")
	}
	text, asJSON := tap.Listen(slog.LevelInfo, false), tap.Listen(slog.LevelDebug, true)
	part := log.With("part", "storage").WithGroup("at").With("dir", "d")
	log.Debug("one")
	part.Info("two\nlines", "n", 2)
	log.Error("three")
	if lines := got(text); len(lines) != 2 || !strings.Contains(lines[0], `msg="two\nlines" part=storage at.dir=d at.n=2`) || !strings.Contains(lines[1], "level=ERROR") || strings.Count(lines[0], "\n") != 1 {
		t.Errorf("%q", lines)
	}
	lines := got(asJSON)
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	var two struct {
		Msg, Part, Level string
		At               struct {
			Dir string
			N   int
		}
	}
	if err := json.Unmarshal([]byte(lines[1]), &two); err != nil || two.Msg != "two\nlines" || two.Part != "storage" || two.At.Dir != "d" || two.At.N != 2 {
		t.Errorf("%v %+v", err, two)
	}
	if s := own.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "three") {
		t.Errorf("the log itself: %s", s)
	}
	asJSON.Close()
	if log.Enabled(t.Context(), slog.LevelDebug) || !log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("who is gone is still heard for")
	}
	log.Error("four")
	if len(got(asJSON)) != 0 || len(got(text)) != 1 {
		t.Error("who is gone gets lines")
	}
	tap.Close()
	select {
	case <-text.Ended():
	default:
		t.Error("the tap is closed, and the listener not told")
	}
	if tap.Listen(slog.LevelInfo, false) != nil {
		t.Error("a closed tap takes a listener")
	}
	text.Close() // it may be closed after the tap
	tap.Close()
}

func TestBounds(t *testing.T) {
	tap := monitor.New(slog.DiscardHandler)
	log := slog.New(tap)
	var all []*monitor.Listener
	for range monitor.MaxListeners {
		all = append(all, tap.Listen(slog.LevelInfo, len(all) == 0))
	}
	if tap.Listen(slog.LevelInfo, false) != nil {
		t.Error("one more than the limit is taken")
	}
	all[2].Close()
	if all[2] = tap.Listen(slog.LevelInfo, false); all[2] == nil {
		t.Error("the place of one that is gone is not given to another")
	}
	log.Info("long", "text", strings.Repeat("é", monitor.MaxLine))
	var one map[string]string
	if lines := got(all[0]); len(lines) != 1 || json.Unmarshal([]byte(lines[0]), &one) != nil || !strings.Contains(one["msg"], "left out") {
		t.Errorf("%q", lines)
	}
	if lines := got(all[1]); len(lines) != 1 || len(lines[0]) > monitor.MaxLine || !strings.HasSuffix(lines[0], "é\n") {
		t.Errorf("%d lines", len(lines))
	}
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range monitor.Buffered / 2 {
				log.Info("many")
			}
		})
	}
	writers.Wait()
	if n, lost := len(got(all[1])), all[1].Lost(); n != monitor.Buffered || lost != monitor.Buffered || all[1].Lost() != 0 {
		t.Errorf("%d lines, %d lost", n, lost)
	}
}
