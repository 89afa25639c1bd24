package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// verdict prints a figure, the bound it is held against, and whether it holds.
func verdict(name string, got, bound float64, atLeast bool, unit string) {
	sign, holds := "<=", got <= bound
	if atLeast {
		sign, holds = ">=", got >= bound
	}
	word := "ok"
	if !holds {
		word = "MISSED"
	}
	fmt.Printf("  %-46s %9.2f%s  (%s %g%s)  %s\n", name, got, unit, sign, bound, unit, word)
}

// measureReads compares reads of random secrets with the ceiling.
func measureReads(s *server, dir string) error {
	answer, err := s.user.do("GET", secretPath(1), nil)
	if err != nil {
		return err
	}
	bare, stop, err := startCeiling(answer, dir)
	if err != nil {
		return err
	}
	defer stop()
	fmt.Println("reads of 1 KiB secrets, TLS, keep-alive, audited, 32 clients")
	var top, own result
	for range *rounds {
		if err := top.load(bare, 32, *slice, func(_, _ int) error {
			_, err := bare.do("GET", secretPath(rand.IntN(1000)), nil)
			return err
		}); err != nil {
			return err
		}
		if err := own.load(s.user, 32, *slice, func(_, _ int) error {
			_, err := s.user.do("GET", secretPath(rand.IntN(1000)), nil)
			return err
		}); err != nil {
			return err
		}
	}
	fmt.Printf("  ceiling  %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", top.perSecond(), top.at(.5), top.at(.99), top.perRequest())
	fmt.Printf("  coffer   %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", own.perSecond(), own.at(.5), own.at(.99), own.perRequest())
	verdict("requests/s, of the ceiling's", own.perSecond()/top.perSecond(), 0.6, true, "")
	verdict("p99, of the ceiling's", float64(own.at(.99))/float64(top.at(.99)), 2, false, "x")
	return nil
}

// measureWrites compares one writer with 128, and with the disk's fsync.
func measureWrites(s *server, dir string) error {
	fmt.Println("\ndurable writes of 1 KiB secrets")
	fsync, err := measureFsync(dir)
	if err != nil {
		return err
	}
	var one, many result
	write := func(c, n int) error {
		_, err := s.user.do("POST", fmt.Sprintf("/v1/secret/data/bench/w%d-%d", c, n%50), payload)
		return err
	}
	syncs := uint64(0)
	for range *rounds {
		before, err := s.syncs()
		if err != nil {
			return err
		}
		if err := one.load(s.user, 1, *slice, write); err != nil {
			return err
		}
		after, err := s.syncs()
		if err != nil {
			return err
		}
		syncs += after - before
		if err := many.load(s.user, 128, *slice, write); err != nil {
			return err
		}
	}
	fmt.Printf("  fsync of 4 KiB appended     p50 %8v\n", fsync)
	fmt.Printf("  1 client    %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", one.perSecond(), one.at(.5), one.at(.99), one.perRequest())
	fmt.Printf("  128 clients %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", many.perSecond(), many.at(.5), many.at(.99), many.perRequest())
	verdict("128 clients, of one client's requests/s", many.perSecond()/one.perSecond(), 20, true, "x")
	verdict("fsyncs of one client's write", float64(syncs)/float64(len(one.latencies)), 3.05, false, "")
	fmt.Printf("  %-46s %9.2f\n", "one client's write, in times of a bare fsync", float64(one.at(.5))/float64(fsync))
	return nil
}

// measureFsync returns the median time of an append and its sync where the
// server keeps its files.
func measureFsync(dir string) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var r result
	block := make([]byte, 4096)
	err = r.load(&target{}, 1, 2*time.Second, func(_, _ int) error {
		if _, err := f.Write(block); err != nil {
			return err
		}
		return f.Sync()
	})
	return r.at(.5), err
}

// measureMillion compares a store of many secrets with one of a thousand.
func measureMillion(ctx context.Context, s *server) error {
	fmt.Printf("\na store of %d secrets\n", *count)
	read := func(n int) func(int, int) error {
		return func(_, _ int) error {
			_, err := s.user.do("GET", secretPath(rand.IntN(n)), nil)
			return err
		}
	}
	var few, all result
	if err := few.load(s.user, 32, time.Duration(*rounds)**slice, read(1000)); err != nil {
		return err
	}
	begun := time.Now()
	const piece = 20_000
	for from := 1000; from < *count; from += piece {
		if err := s.fill(from, min(from+piece, *count)); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "\r  %d of %d written", min(from+piece, *count), *count)
	}
	fmt.Fprintln(os.Stderr)
	fmt.Printf("  written in %v\n", time.Since(begun).Round(time.Second))
	if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-s.ended
	took, err := s.start(ctx)
	if err != nil {
		return err
	}
	// The thousand were read for a while when they were measured; so are these.
	var warm result
	if err := warm.load(s.user, 32, 10*time.Second, read(*count)); err != nil {
		return err
	}
	if err := all.load(s.user, 32, time.Duration(*rounds)**slice, read(*count)); err != nil {
		return err
	}
	var list result
	if err := list.load(s.user, 1, 2*time.Second, func(_, n int) error {
		_, err := s.user.do("LIST", fmt.Sprintf("/v1/secret/metadata/bench?limit=100&after=s%07d", rand.IntN(*count)), nil)
		return err
	}); err != nil {
		return err
	}
	fmt.Printf("  1,000 secrets     %8.0f/s  p99 %8v\n", few.perSecond(), few.at(.99))
	fmt.Printf("  all secrets       %8.0f/s  p99 %8v\n", all.perSecond(), all.at(.99))
	verdict("read p99, of that with 1,000", float64(all.at(.99))/float64(few.at(.99)), 1.3, false, "x")
	verdict("start after kill -9 to first answer", took.Seconds(), 2, false, " s")
	verdict("resident memory", float64(s.memory())/(1<<20), 600, false, " MiB")
	verdict("listing 100 names, p99", float64(list.at(.99))/float64(time.Millisecond), 10, false, " ms")
	return nil
}
