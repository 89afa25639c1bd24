// Command bench measures a running server against its ceiling, a bare net/http
// TLS server that answers the same bytes, and prints the ratios. Both run as
// processes of their own and take turns, so that a noisy machine is noisy for
// both. It is no test: it fails only when a request does.
//
//	go run ./internal/bench            reads and writes
//	go run ./internal/bench -million   and a store of a million secrets
//	scripts/bench-leases               a million leases of a PostgreSQL
//	scripts/bench-cluster              nodes over etcd and over PostgreSQL
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

var (
	binary  = flag.String("coffer", "bin/coffer", "the server to measure")
	million = flag.Bool("million", false, "also measure a store of a million secrets")
	count   = flag.Int("secrets", 1_000_000, "how many secrets -million means")
	slice   = flag.Duration("slice", 2*time.Second, "how long one side is measured before the other's turn")
	rounds  = flag.Int("rounds", 5, "how many turns each side gets")
	lending = flag.String("leases", "", "measure leases instead, lent by the PostgreSQL at this URL, which lets this user in without a password")
	lent    = flag.Int("lent", 1_000_000, "how many leases -leases means")
	relaxed = flag.Bool("relaxed", false, "run the server with audit { sync = \"changes\" }")
	shared  = flag.String("storage", "", "measure nodes over this engine instead: KIND:NAME=VALUE,NAME=VALUE, such as etcd:address=http://127.0.0.1:2379")
	keep    = flag.String("profile", "", "keep the profile of reads, of writes where there are nodes, in this file")
	ceiling = flag.String("serve-ceiling", "", "internal: answer the body in this file over TLS")
)

func main() {
	flag.Parse()
	if *ceiling != "" {
		serveCeiling(*ceiling)
		return
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp(".", ".bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	fmt.Printf("%d cores, %s, %s/%s\n\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if *shared != "" {
		return measureCluster(ctx, dir, *shared)
	}
	s, err := startServer(ctx, dir)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := s.prepare(1000); err != nil {
		return err
	}
	if *lending != "" {
		return measureLeases(ctx, s, *lending)
	}
	if err := measureReads(s, dir); err != nil {
		return err
	}
	if err := profileReads(s, dir); err != nil {
		return err
	}
	if err := measureWrites(s, dir); err != nil {
		return err
	}
	if err := measureLogins(s); err != nil {
		return err
	}
	if *million {
		return measureMillion(ctx, s)
	}
	return nil
}
