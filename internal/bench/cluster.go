package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/builtin"
	"github.com/cofferhq/coffer/internal/storage"
)

// cluster is three nodes over one engine.
type cluster struct {
	kind     string
	settings map[string]string
	nodes    []*server
}

// measureCluster compares nodes over an engine with a server on the embedded one,
// and with the engine alone. The engine must be empty, or another benchmark's.
func measureCluster(ctx context.Context, dir, engine string) error {
	kind, rest, _ := strings.Cut(engine, ":")
	c := &cluster{kind: kind, settings: map[string]string{}}
	for setting := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(setting, "=")
		c.settings[name] = strings.ReplaceAll(value, ";", ",")
	}
	own, err := startServer(ctx, subdirectory(dir, "embedded"))
	if err != nil {
		return err
	}
	defer own.stop()
	if err := own.prepare(1000); err != nil {
		return err
	}
	if err := c.start(ctx, dir); err != nil {
		return err
	}
	defer c.stop()
	fmt.Printf("nodes over %s\n", kind)
	if err := c.reads(own); err != nil {
		return err
	}
	if err := c.writes(ctx); err != nil {
		return err
	}
	return c.revocations()
}

func subdirectory(dir, name string) string {
	path := filepath.Join(dir, name)
	_ = os.MkdirAll(path, 0o700)
	return path
}

// under returns the settings with a part of the engine of its own.
func (c *cluster) under(part string) map[string]string {
	own := maps.Clone(c.settings)
	if c.kind == "etcd" {
		own["path"] = part + "/"
	} else {
		own["table"] = part
	}
	return own
}

func (c *cluster) start(ctx context.Context, dir string) error {
	part := fmt.Sprintf("bench_%d", time.Now().UnixNano())
	key := filepath.Join(dir, "seal.key")
	for i := range 3 {
		own := subdirectory(dir, fmt.Sprint("node-", i))
		text := fmt.Sprintf("node_id = \"node-%d\"\ndata_dir = %q\nseal \"keyfile\" { path = %q }\nstorage %q {\n", i, filepath.Join(own, "data"), key, c.kind)
		for name, value := range c.under(part) {
			text += fmt.Sprintf("  %s = %q\n", name, value)
		}
		s, err := configure(own, text+"}\n")
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, s)
		if i == 0 {
			if err = s.begin(ctx); err == nil {
				err = s.prepare(1000)
			}
		} else if _, err = s.start(ctx); err == nil {
			err = s.like(c.nodes[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// like gives a node the tokens that another one made.
func (s *server) like(first *server) (err error) {
	ca := filepath.Join(s.dir, "data", "tls", "ca.pem")
	if s.root, err = newTarget("https://"+s.address, first.root.token, ca, 8); err != nil {
		return err
	}
	if s.user, err = newTarget(s.root.url, first.user.token, ca, 128); err == nil {
		s.user.pid = s.cmd.Process.Pid
	}
	return err
}

func (c *cluster) stop() {
	for _, s := range c.nodes {
		s.stop()
	}
}

// reads compares a warm node with the embedded engine's server, and one node with
// two and three.
func (c *cluster) reads(own *server) error {
	over := func(nodes []*server) func(int, int) error {
		return func(client, _ int) error {
			_, err := nodes[client%len(nodes)].user.do("GET", secretPath(rand.IntN(1000)), nil)
			return err
		}
	}
	var embedded, node result
	var grown [4]result
	for range *rounds {
		if err := embedded.load(own.user, 32, *slice, over([]*server{own})); err != nil {
			return err
		}
		if err := node.load(c.nodes[0].user, 32, *slice, over(c.nodes[:1])); err != nil {
			return err
		}
		for n := 1; n <= 3; n++ {
			if err := grown[n].load(&target{}, 32, *slice, over(c.nodes[:n])); err != nil {
				return err
			}
		}
	}
	fmt.Printf("  reads, embedded engine %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", embedded.perSecond(), embedded.at(.5), embedded.at(.99), embedded.perRequest())
	fmt.Printf("  reads, one warm node   %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", node.perSecond(), node.at(.5), node.at(.99), node.perRequest())
	verdict("requests/s, of the embedded engine's", node.perSecond()/embedded.perSecond(), 0.9, true, "")
	fmt.Printf("  reads, 1, 2, 3 nodes   %8.0f/s %8.0f/s %8.0f/s\n", grown[1].perSecond(), grown[2].perSecond(), grown[3].perSecond())
	return nil
}

// writes compares one node with the engine alone, which is given the transactions
// that a write of a secret is: one row read, and two written.
func (c *cluster) writes(ctx context.Context) error {
	kind := builtin.StorageKind(c.kind)
	if kind == nil {
		return fmt.Errorf("there is no storage engine %q", c.kind)
	}
	bare, err := kind.Open(ctx, c.under(fmt.Sprintf("bare_%d", time.Now().UnixNano())), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer bare.Close()
	meta, version := make([]byte, 400), make([]byte, 1200)
	commit := func(client, n int) error {
		key := fmt.Sprintf("mount/0/w%d-%d", client, n%50)
		_, err := bare.Update(ctx, func(t storage.Txn) error {
			if _, err := t.Get(key); err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			if err := t.Put(key, meta); err != nil {
				return err
			}
			return t.Put(fmt.Sprintf("%s/%d", key, n), version)
		})
		return err
	}
	write := func(client, n int) error {
		_, err := c.nodes[0].user.do("POST", fmt.Sprintf("/v1/secret/data/bench/w%d-%d", client, n%50), payload)
		return err
	}
	var engine, one, node result
	var follower, loader time.Duration // processor time of a node that only hears of the writes, and of this process
	for range *rounds {
		if err := engine.load(&target{}, 128, *slice, commit); err != nil {
			return err
		}
		if err := one.load(c.nodes[0].user, 1, *slice, write); err != nil {
			return err
		}
		heard, sent := processorTime(c.nodes[1].user.pid), processorTime(os.Getpid())
		if err := node.load(c.nodes[0].user, 128, *slice, write); err != nil {
			return err
		}
		follower, loader = follower+processorTime(c.nodes[1].user.pid)-heard, loader+processorTime(os.Getpid())-sent
	}
	fmt.Printf("  commits, engine alone, 128 %6.0f/s  p50 %8v  p99 %8v\n", engine.perSecond(), engine.at(.5), engine.at(.99))
	fmt.Printf("  writes, 1 client           %6.0f/s  p50 %8v  p99 %8v\n", one.perSecond(), one.at(.5), one.at(.99))
	fmt.Printf("  writes, 128 clients        %6.0f/s  p50 %8v  p99 %8v  processor %8v\n", node.perSecond(), node.at(.5), node.at(.99), node.perRequest())
	each := time.Duration(len(node.latencies))
	fmt.Printf("  processor per write: the node %v, each other node %v, the clients %v; an engine's commit alone, clients included, takes %v\n", node.perRequest(),
		(follower / each).Round(time.Microsecond/10), (loader / each).Round(time.Microsecond/10), (time.Duration(runtime.NumCPU()) * time.Second / time.Duration(engine.perSecond())).Round(time.Microsecond/10))
	verdict("writes/s, of the engine's commits/s", node.perSecond()/engine.perSecond(), 0.7, true, "")
	if *keep == "" {
		return nil
	}
	return profile(c.nodes[0], c.nodes[0].dir, "write", 128, write)
}

// revocations measures how long after a token's revocation on one node another
// one still accepts it.
func (c *cluster) revocations() error {
	var took result
	here, there := c.nodes[0], c.nodes[1]
	for range 1000 {
		answer, err := here.root.do("POST", "/v1/auth/token/create", []byte(`{"policies":["bench"],"ttl":"1h"}`))
		if err != nil {
			return err
		}
		var created struct {
			Auth struct {
				ClientToken string `json:"client_token"`
			} `json:"auth"`
		}
		if err := json.Unmarshal(answer, &created); err != nil {
			return err
		}
		as := *there.root
		as.token = created.Auth.ClientToken
		accepted := func() bool {
			_, err := as.do("GET", "/v1/auth/token/lookup-self", nil)
			return err == nil
		}
		for !accepted() {
			time.Sleep(time.Millisecond)
		}
		body, _ := json.Marshal(map[string]string{"token": as.token})
		if _, err := here.root.do("POST", "/v1/auth/token/revoke", body); err != nil {
			return err
		}
		begun := time.Now()
		for accepted() {
		}
		took.latencies = append(took.latencies, time.Since(begun))
	}
	fmt.Printf("  revoked on one node, refused on another after  p50 %v  p99 %v\n", took.at(.5), took.at(.99))
	verdict("median", float64(took.at(.5))/float64(time.Millisecond), 20, false, " ms")
	verdict("worst of 1,000", took.at(1).Seconds(), 1, false, " s")
	return nil
}
