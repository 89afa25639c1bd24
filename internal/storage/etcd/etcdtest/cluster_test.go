package etcdtest

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// TestKillLeader: what was put before the leader died is there under another.
func TestKillLeader(t *testing.T) {
	c := Start(t, 3)
	client := c.Client(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := client.Put(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	first := c.Leader(t)
	first.Kill(t)
	if second := c.Leader(t); second == first {
		t.Error("the dead member leads")
	}
	resp, err := client.Get(ctx, "k")
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	first.Start(t)
	first.WaitReady(t)
}

// TestTLS: members that want a certificate answer one who has it.
func TestTLS(t *testing.T) {
	c := Start(t, 1, WithTLS(true))
	if _, err := c.Client(t).Get(context.Background(), "k"); err != nil {
		t.Error(err)
	}
}

func TestDebian(t *testing.T) {
	c := Debian(t)
	if _, err := c.Client(t).Put(context.Background(), "k", "v"); err != nil {
		t.Error(err)
	}
}
