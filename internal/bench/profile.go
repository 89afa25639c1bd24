package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// profileReads profiles reads of secrets.
func profileReads(s *server, dir string) error {
	return profile(s, dir, "read", 32, func(_, _ int) error {
		_, err := s.user.do("GET", secretPath(rand.IntN(1000)), nil)
		return err
	})
}

// profile prints what a request allocates in the server, HTTP and TLS included,
// and where its time goes.
func profile(s *server, dir, what string, clients int, request func(client, n int) error) error {
	before, err := s.counter("go_memstats_mallocs_total")
	if err != nil {
		return err
	}
	var r result
	if err := r.load(s.user, clients, *slice, request); err != nil {
		return err
	}
	after, err := s.counter("go_memstats_mallocs_total")
	if err != nil {
		return err
	}
	fmt.Printf("  %-46s %9.0f\n", "allocations per "+what+", of the whole server", (after-before)/float64(len(r.latencies)))
	file := filepath.Join(dir, what+".pprof")
	failed := make(chan error, 1)
	go func() {
		profile, err := s.root.do("GET", "/v1/sys/pprof/profile?seconds=5", nil)
		if err == nil {
			err = os.WriteFile(file, profile, 0o600)
		}
		failed <- err
	}()
	if err := r.load(s.user, clients, 6*time.Second, request); err != nil {
		return err
	}
	if err := <-failed; err != nil {
		return err
	}
	if *keep != "" {
		if text, err := os.ReadFile(file); err != nil || os.WriteFile(*keep, text, 0o600) != nil {
			return fmt.Errorf("the profile cannot be kept in %s", *keep)
		}
	}
	out, err := exec.Command("go", "tool", "pprof", "-top", "-cum", "-nodecount=400", *binary, file).Output()
	if err != nil {
		return err
	}
	fmt.Println("  where the time goes (share of the server's processor time, with what is called):")
	for line := range strings.Lines(string(out)) {
		if cells := strings.Fields(line); len(cells) >= 6 && named(cells[5]) != "" {
			fmt.Printf("    %7s  %s\n", cells[4], named(cells[5]))
		}
	}
	return nil
}

// parts are the functions by which the profile is told, with what they do.
var parts = map[string]string{
	"net/http.(*conn).serve":                     "all of a request over HTTP/1.1",
	"net/http.(*conn).readRequest":               "reading the request",
	"gateway.(*Gateway).Serve":                   "the gateway, with all below",
	"gateway.(*Gateway).authenticate":            "token",
	"gateway.(*Gateway).authorize":               "policies",
	"gateway.(*Gateway).handle":                  "reading and decrypting",
	"gateway.(*Gateway).append":                  "audit entry, until it is durable",
	"audit.(*Log).write":                         "audit log's writer",
	"crypto/tls.(*Conn).Write":                   "TLS and socket, writing",
	"crypto/tls.(*Conn).Read":                    "TLS and socket, reading",
	"runtime.gcBgMarkWorker":                     "garbage collector",
	"runtime.schedule":                           "scheduler",
	"internal/runtime/syscall/linux.Syscall6":    "system calls",
	"github.com/cockroachdb/pebble/v2.(*DB).Get": "storage",
}

func named(function string) string {
	function = strings.TrimPrefix(function, "github.com/cofferhq/coffer/internal/")
	return parts[function]
}

// syncs is how often the server has synced its files so far, all together.
func (s *server) syncs() (uint64, error) {
	store, err := s.counter("coffer_storage_sync_duration_seconds_count")
	if err != nil {
		return 0, err
	}
	log, err := s.counter("coffer_audit_sync_duration_seconds_count")
	return uint64(store + log), err
}

// counter reads one of the server's metrics.
func (s *server) counter(name string) (float64, error) {
	text, err := s.root.do("GET", "/v1/sys/metrics?format=prometheus", nil)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			return strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
		}
	}
	return 0, fmt.Errorf("the server has no metric %s", name)
}
