package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/cofferhq/coffer/internal/config"
)

// logFile is a file that rotation may move away under us: Reopen goes on in a
// fresh one of the same name.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File
}

func openLogFile(path string) (*logFile, error) {
	f := &logFile{path: path}
	return f, f.Reopen()
}

// Reopen opens the file of this name anew. When that fails the one before stays.
func (f *logFile) Reopen() error {
	fresh, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log file: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		_ = f.file.Close()
	}
	f.file = fresh
	return nil
}

func (f *logFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Write(p)
}

// Logger returns the log that cfg asks for, written to stderr unless it names a
// file, and what reopens that file after it was moved away.
func Logger(cfg *config.Config, stderr io.Writer) (log *slog.Logger, reopen func() error, err error) {
	out, reopen := stderr, func() error { return nil }
	if cfg.LogFile != "" {
		file, err := openLogFile(cfg.LogFile)
		if err != nil {
			return nil, nil, err
		}
		out, reopen = file, file.Reopen
	}
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), reopen, nil
	}
	return slog.New(slog.NewTextHandler(out, options)), reopen, nil
}
