package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cofferhq/coffer/internal/storage"
)

// call is one operation on one key, and reply its outcome.
type call struct {
	op    string // get, scan, put, cas, delete
	key   string
	value string // put and cas: the new value
	old   string // cas: the expected value, "" for none
}

type reply struct {
	value   string // get and scan: "" for none
	ok      bool   // cas: the value was as expected
	unknown bool   // nobody was told how it ended
}

// register is a key that holds a value, "" for none.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(call).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(call), output.(reply)
		switch in.op {
		case "put":
			return true, in.value
		case "delete":
			return true, ""
		case "cas":
			switch {
			case out.unknown && now == in.old:
				return true, in.value
			case out.unknown:
				return true, now
			case out.ok:
				return now == in.old, in.value
			}
			return now != in.old, now
		default:
			return out.value == now, now
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// testLinearizable: concurrent operations look as if each took effect at one
// moment between its call and its return.
func testLinearizable(t *testing.T, o Options) {
	e := open(t, o)
	total := 0
	for round := range Rounds(3) {
		history := record(t, e, uint64(round), 8, 60)
		total += len(history)
		result, info := porcupine.CheckOperationsVerbose(register, history, time.Minute)
		if result != porcupine.Ok {
			t.Fatalf("round %d: not linearizable: %v %v", round, result, info)
		}
	}
	t.Logf("operations checked: %d", total)
}

// record runs clients at the same time on a few keys and returns what they saw.
func record(t *testing.T, e storage.Engine, seed uint64, clients, each int) []porcupine.Operation {
	var mu sync.Mutex
	var history []porcupine.Operation
	var wg sync.WaitGroup
	start := time.Now()
	for id := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(id)))
			seen := map[string]string{}
			for n := range each {
				in := call{
					op:    []string{"get", "get", "scan", "put", "cas", "cas", "delete"}[rng.IntN(7)],
					key:   fmt.Sprintf("r%d/k%d", seed, rng.IntN(4)),
					value: fmt.Sprintf("%d.%d", id, n),
				}
				in.old = seen[in.key]
				began := time.Since(start)
				out, _, err := attempt(e, in)
				ended := time.Since(start)
				if err != nil {
					t.Error(err)
					return
				}
				if in.op == "get" || in.op == "scan" {
					seen[in.key] = out.value
				}
				mu.Lock()
				history = append(history, porcupine.Operation{
					ClientId: id, Input: in, Output: out, Call: int64(began), Return: int64(ended),
				})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return history
}

func attempt(e storage.Engine, in call) (out reply, rev storage.Revision, err error) {
	ctx := context.Background()
	switch in.op {
	case "get":
		err = e.View(ctx, func(r storage.Reader) (err error) {
			out.value, _, err = read(r, in.key)
			return err
		})
	case "scan":
		err = e.View(ctx, func(r storage.Reader) error {
			entries, err := r.Scan(in.key, "", 1)
			if len(entries) == 1 {
				out.value = string(entries[0].Value)
			}
			return err
		})
	case "put":
		rev, err = e.Update(ctx, func(tx storage.Txn) error { return tx.Put(in.key, []byte(in.value)) })
	case "delete":
		rev, err = e.Update(ctx, func(tx storage.Txn) error { return tx.Delete(in.key) })
	case "cas":
		rev, err = e.Update(ctx, func(tx storage.Txn) error {
			now, _, err := read(tx, in.key)
			if err != nil {
				return err
			}
			if now != in.old {
				return errEnough
			}
			return tx.Put(in.key, []byte(in.value))
		})
		out.ok = err == nil
		if errors.Is(err, errEnough) {
			err = nil
		}
	}
	return out, rev, err
}
