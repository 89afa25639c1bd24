// Package app wires one server: storage, seals, audit log, gateway and
// listeners. It decides nothing that a request could ask; it only puts the parts
// together, starts them in order and stops them in reverse.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferhq/coffer/internal/audit"
	"github.com/cofferhq/coffer/internal/backup"
	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/gateway"
	"github.com/cofferhq/coffer/internal/metrics"
	"github.com/cofferhq/coffer/internal/monitor"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/process"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/sys"
	"github.com/cofferhq/coffer/internal/wire"
)

// shutdownBound is how long requests under way may take to finish.
const shutdownBound = 20 * time.Second

// Server is one running server.
type Server struct {
	cfg     *config.Config
	log     *slog.Logger
	tap     *monitor.Tap // on log
	version sys.Version
	dataDir string // what belongs to this node alone
	store   string // the embedded engine's directory
	nodeID  string
	temp    string      // removed at the end; of a development server
	devRoot wire.Secret // a development server's root token

	engine  storage.Engine
	barrier *barrier.Barrier
	audit   *audit.Log
	origin  string
	node    *node.Node
	gateway *gateway.Gateway
	system  *sys.System
	metrics *metrics.Metrics
	keeper  keeper

	first     atomic.Pointer[FirstStart] // while the server initializes itself
	running   *running                   // while unsealed
	runningMu sync.RWMutex
	// opened are the parts that routes ask. They stay after sealing, for requests
	// that were let in before it: what they ask of the shut barrier is refused.
	opened     atomic.Pointer[running]
	listeners  []*listener
	background sync.WaitGroup
	end        context.CancelFunc
	failed     chan error
}

// Start opens everything, serves, and returns. The server is unsealed when its
// seal opens by itself.
func Start(ctx context.Context, cfg *config.Config, version sys.Version, log *slog.Logger) (_ *Server, err error) {
	tap := monitor.New(log.Handler())
	log = slog.New(tap)
	s := &Server{cfg: cfg, log: log, tap: tap, version: version, failed: make(chan error, 8)}
	ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, notice := range cfg.Notices {
		log.Warn(notice)
	}
	if err := s.openData(ctx); err != nil {
		return nil, err
	}
	s.build(ctx)
	if err := s.event(ctx, "started"); err != nil {
		return nil, err
	}
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	if cfg.Dev != nil {
		s.devRoot, err = s.Initialize(ctx, FirstStart{RootToken: cfg.Dev.RootToken, KV: !cfg.Dev.NoKV})
		return s, err
	}
	if err := s.node.AutoUnseal(ctx); err != nil {
		log.Error("no seal opens the server; it goes on trying", "error", err)
	}
	s.background.Go(func() { s.node.Join(ctx) })
	return s, nil
}

// openData opens what lies on disk.
func (s *Server) openData(ctx context.Context) error {
	s.dataDir, s.store = s.cfg.DataDir, filepath.Join(s.cfg.Storage.Path, "store")
	if s.cfg.Dev != nil {
		dir, err := os.MkdirTemp("", "coffer-dev-")
		if err != nil {
			return err
		}
		s.temp, s.dataDir, s.store = dir, dir, filepath.Join(dir, "store")
	}
	if err := os.MkdirAll(s.dataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	var err error
	if s.nodeID, err = nodeID(s.cfg.NodeID, s.dataDir); err != nil {
		return fmt.Errorf("name the node: %w", err)
	}
	if s.engine, err = s.openStorage(ctx); err != nil {
		return fmt.Errorf("open the storage: %w", err)
	}
	if err := backup.Whole(ctx, s.engine); err != nil {
		return err
	}
	dir := s.cfg.Audit.Path
	if dir == "" {
		dir = filepath.Join(s.dataDir, "audit")
	}
	if s.origin, err = originOf(dir); err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	s.audit, err = audit.Open(dir, audit.Options{
		Origin: s.origin, SegmentSize: s.cfg.Audit.SegmentSize, Reserve: s.cfg.Audit.Reserve,
		OnCheckpoint: s.keeper.Keep, Logger: s.log,
	})
	return err
}

// build makes the parts that a sealed server has.
func (s *Server) build(ctx context.Context) {
	s.barrier = barrier.New(s.engine, s.log)
	s.metrics = metrics.New(s.sources())
	s.node = node.New(node.Options{
		Engine: s.engine, Barrier: s.barrier, Seals: s.openSeals(ctx), Log: s.log,
		OnUnseal: s.unseal, OnSeal: s.seal, NewRootToken: s.newRootToken, TokenLength: tokenLength, Record: s.event,
	})
	s.system = sys.New(s.systemOptions())
	s.gateway = gateway.New(gateway.Options{
		Audit: s.audit, Sys: s.system, SysTable: route.NewTable(sys.Kind(s.system).Spec().Routes),
		Log: s.log, Metrics: s.metrics, RelaxedReads: !s.cfg.Audit.SyncReads,
		StaleReads: s.cfg.StaleReads,
	})
}

// event records something in the server's life.
func (s *Server) event(ctx context.Context, name string) error {
	return s.audit.Append(context.WithoutCancel(ctx), &audit.Entry{Type: audit.Event, Event: name})
}

// Initialized reports whether the server was initialized, and sealed whether it
// is sealed now.
func (s *Server) Initialized(ctx context.Context) (initialized, sealed bool, err error) {
	st, err := s.node.Status(ctx)
	return st.Initialized, st.Sealed, err
}

// Address returns the address of the first listener, and the CA file that its
// certificate is verified with, "" for a public one or plain HTTP.
func (s *Server) Address() (url, caFile string) {
	return s.listeners[0].url(), s.listeners[0].caFile
}

// DevRootToken returns a development server's root token.
func (s *Server) DevRootToken() wire.Secret { return s.devRoot }

// Dev returns how a development server was asked for, nil for any other.
func (s *Server) Dev() *config.Dev { return s.cfg.Dev }

// Wait returns when ctx ends or a listener fails.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// Reload reads certificates anew; log files and TLS files are also looked at by
// themselves.
func (s *Server) Reload() {
	for _, l := range s.listeners {
		l.reload(s.log)
	}
}

// Close finishes the requests under way within a bound, seals, and closes what
// was opened, in reverse.
func (s *Server) Close() error {
	var errs []error
	s.tap.Close() // those who monitor the log would keep their connections
	ctx, cancel := context.WithTimeout(context.Background(), shutdownBound)
	defer cancel()
	var stopping sync.WaitGroup
	for _, l := range s.listeners {
		stopping.Go(func() {
			if err := l.server.Shutdown(ctx); err != nil {
				s.log.Warn("requests were cut off at shutdown", "address", l.url())
			}
		})
	}
	stopping.Wait()
	if s.node != nil {
		if err := s.event(ctx, "stopped"); err != nil {
			errs = append(errs, err)
		}
		s.node.Close()
	}
	s.end()
	s.background.Wait()
	if s.audit != nil {
		errs = append(errs, s.audit.Close())
	}
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	if s.temp != "" {
		errs = append(errs, os.RemoveAll(s.temp))
	}
	return errors.Join(errs...)
}

// Run is the life of a server process: it starts the server, tells the
// supervisor, waits for a signal and closes. The log goes to stderr unless the
// configuration names a file. ready is called once the server answers.
func Run(ctx context.Context, cfg *config.Config, version sys.Version, stderr io.Writer, ready func(context.Context, *Server) error) error {
	log, reopen, err := Logger(cfg, stderr)
	if err != nil {
		return err
	}
	if err := process.Harden(); err != nil {
		log.Warn("the process is not as closed as it could be", "error", err)
	}
	if !cfg.DisableMlock {
		process.LockMemory(log)
	}
	if cfg.PIDFile != "" {
		remove, err := process.WritePID(cfg.PIDFile)
		if err != nil {
			return err
		}
		defer func() { _ = remove() }()
	}
	if os.Getenv("GOGC") == "" {
		// What requests leave behind is small beside any machine's memory; to
		// collect it less often is a tenth of the processor's time.
		debug.SetGCPercent(400)
	}
	supervisor := process.FindSupervisor()
	var serving atomic.Pointer[Server]
	ctx, stop := process.Signals(ctx, log, func() {
		_ = supervisor.Reloading()
		if err := reopen(); err != nil {
			log.Error("the log goes on in the file it had", "error", err)
		}
		if s := serving.Load(); s != nil {
			s.Reload()
		}
		_ = supervisor.Ready("serving")
	})
	defer stop()
	s, err := Start(ctx, cfg, version, log)
	if err != nil {
		return err
	}
	serving.Store(s)
	if ready != nil {
		if err := ready(ctx, s); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	_ = supervisor.Ready("serving")
	go supervisor.Watchdog(ctx)
	err = s.Wait(ctx)
	_ = supervisor.Stopping()
	return errors.Join(err, s.Close())
}
