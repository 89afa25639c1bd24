package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// measureLeases compares a server that lent many accounts with itself before, and
// reads while a tenth of the accounts end in the same second with reads at rest. What
// is lent costs the database next to nothing, so that Coffer is measured.
func measureLeases(ctx context.Context, s *server, database string) error {
	fmt.Printf("\n%d leases, of which %d end in the same second\n", *lent, *lent/10)
	if err := s.prepareLending(database); err != nil {
		return err
	}
	read := func(_, _ int) error {
		_, err := s.user.do("GET", secretPath(rand.IntN(1000)), nil)
		return err
	}
	// Both sides are measured after a restart, and after reads.
	measure := func() (start time.Duration, memory int64, reads result, err error) {
		if err = s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			return
		}
		<-s.ended
		if start, err = s.start(ctx); err != nil {
			return
		}
		s.user.pid = s.cmd.Process.Pid
		if err = new(result).load(s.user, 32, *slice, read); err != nil {
			return
		}
		err = reads.load(s.user, 32, time.Duration(*rounds)**slice, read)
		return start, s.memory(), reads, err
	}
	start, memory, _, err := measure()
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := s.lend(*lent - *lent/10); err != nil {
		return err
	}
	fmt.Printf("  %d lent in %v, %.0f/s\n", *lent-*lent/10, time.Since(begun).Round(time.Second), float64(*lent-*lent/10)/time.Since(begun).Seconds())
	// All that remain end at one time, however long it takes to lend them.
	end := time.Now().Add(time.Duration(float64(time.Since(begun))*.3) + time.Minute).Truncate(time.Second)
	for left := *lent / 10; left > 0; {
		if err := s.role(time.Until(end)); err != nil {
			return err
		}
		piece := min(left, 500)
		if err := s.lend(piece); err != nil {
			return err
		}
		left -= piece
	}
	fullStart, fullMemory, rest, err := measure()
	if err != nil {
		return err
	}
	if late := time.Since(end); late > 0 {
		return fmt.Errorf("the leases ended %v before they were to be measured; this machine is too slow", late)
	}
	time.Sleep(time.Until(end) - time.Second)
	var ending result
	var mu sync.Mutex
	most, over := int64(0), make(chan struct{})
	var failed error
	go func() {
		defer close(over)
		for {
			time.Sleep(time.Second)
			n, err := s.leases()
			mu.Lock()
			most, failed = max(most, s.memory()), err
			mu.Unlock()
			if err != nil || n <= *lent-*lent/10 {
				return
			}
		}
	}()
	for busy := true; busy; {
		if err := ending.load(s.user, 32, *slice, read); err != nil {
			return err
		}
		select {
		case <-over:
			busy = false
		default:
		}
	}
	took := time.Since(end)
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return failed
	}
	const mib = 1 << 20
	fmt.Printf("  no leases                   start %v, resident %d MiB\n", start.Round(time.Millisecond), memory/mib)
	fmt.Printf("  all leases                  start %v, resident %d MiB\n", fullStart.Round(time.Millisecond), fullMemory/mib)
	fmt.Printf("  reads at rest     %8.0f/s  p50 %8v  p99 %8v\n", rest.perSecond(), rest.at(.5), rest.at(.99))
	fmt.Printf("  reads meanwhile   %8.0f/s  p50 %8v  p99 %8v\n", ending.perSecond(), ending.at(.5), ending.at(.99))
	fmt.Printf("  ended in %v, %.0f/s; resident at most %d MiB\n", took.Round(time.Second), float64(*lent/10)/took.Seconds(), most/mib)
	verdict("resident memory, more than without leases", float64(fullMemory-memory)/mib, 100, false, " MiB")
	verdict("start, of that without leases", fullStart.Seconds()/start.Seconds(), 1.2, false, "x")
	verdict("read p99 while they end, of that at rest", float64(ending.at(.99))/float64(rest.at(.99)), 2, false, "x")
	return nil
}

// prepareLending mounts a database that lends, and lets one token hold any number.
func (s *server) prepareLending(database string) error {
	config, err := json.Marshal(map[string]any{
		"plugin_name": "postgresql-database-plugin", "connection_url": database, "allowed_roles": "*", "max_open_connections": 16,
	})
	if err != nil {
		return err
	}
	for _, r := range []struct{ path, body string }{
		{"sys/quotas/config", `{"max_leases_per_entity":0}`},
		{"sys/mounts/database", `{"type":"database"}`},
		{"database/config/bench", string(config)},
	} {
		if _, err := s.root.do("POST", "/v1/"+r.path, []byte(r.body)); err != nil {
			return err
		}
	}
	return s.role(24 * time.Hour)
}

// role writes the role that lends, for a time.
func (s *server) role(ttl time.Duration) error {
	_, err := s.root.do("POST", "/v1/database/roles/bench", fmt.Appendf(nil,
		`{"db_name":"bench","creation_statements":["SELECT '{{name}}', '{{password}}'"],"revocation_statements":["SELECT '{{name}}'"],"default_ttl":%d}`, int(ttl.Seconds())))
	return err
}

// lend lends so many accounts.
func (s *server) lend(n int) error {
	const clients = 64
	root := *s.user
	root.token = s.root.token
	done := make(chan error, clients)
	for c := range clients {
		go func() {
			for i := c; i < n; i += clients {
				if _, err := root.do("GET", "/v1/database/creds/bench", nil); err != nil {
					done <- err
					return
				}
				if c == 0 && i%6400 == 0 && n > 6400 {
					fmt.Fprintf(os.Stderr, "\r  %d of %d lent", i, n)
				}
			}
			done <- nil
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

var leasesLine = regexp.MustCompile(`(?m)^coffer_leases ([0-9.e+]+)$`)

// leases is how many leases there are.
func (s *server) leases() (int, error) {
	text, err := s.root.do("GET", "/v1/sys/metrics?format=prometheus", nil)
	if err != nil {
		return 0, err
	}
	found := leasesLine.FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("the metrics do not say how many leases there are")
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	return int(n), err
}
