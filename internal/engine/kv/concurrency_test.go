package kv_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
)

// rounds multiplies work when COFFER_SOAK is set.
func rounds(n int) int {
	if soak, err := strconv.Atoi(os.Getenv("COFFER_SOAK")); err == nil && soak > 0 {
		return n * 50 * soak
	}
	return n
}

// TestOneWinnerPerVersion lets writers race with check-and-set: every version
// has exactly one writer who was told that it was theirs.
func TestOneWinnerPerVersion(t *testing.T) {
	e := openV2(t)
	e.Must(t, 204, "POST", "metadata/s", `{"max_versions":1000}`)
	const writers = 8
	versions := min(rounds(100), 1000)
	won := make([][]int, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for cas := 0; cas < versions; {
				a := e.Do("POST", "data/s", fmt.Sprintf(`{"data":{"writer":%d},"options":{"cas":%d}}`, w, cas))
				switch {
				case a.Err == nil:
					won[w] = append(won[w], int(a.Output.(kv.WriteResponse).Version))
				case a.Status != 400:
					t.Error(a.Err)
					return
				}
				out, ok := e.Do("GET", "metadata/s", "").Output.(kv.MetadataResponse)
				if !ok {
					t.Error("no metadata")
					return
				}
				cas = int(out.Current)
			}
		})
	}
	wg.Wait()
	owner := map[int]int{}
	for w := range won {
		for _, n := range won[w] {
			if other, taken := owner[n]; taken {
				t.Errorf("version %d was given to %d and %d", n, other, w)
			}
			owner[n] = w
		}
	}
	if out := metadata(t, e, "s"); int(out.Newest) != len(owner) {
		t.Errorf("%d versions, but %d winners", out.Newest, len(owner))
	}
	for n, w := range owner {
		a := e.Must(t, 200, "GET", fmt.Sprintf("data/s?version=%d", n), "")
		if got := string(a.Output.(kv.ReadResponse).Data); got != fmt.Sprintf(`{"writer":%d}`, w) {
			t.Errorf("version %d is %s, won by %d", n, got, w)
		}
	}
}

// TestPatchesAreNotLost lets patchers race without check-and-set.
func TestPatchesAreNotLost(t *testing.T) {
	e := openV2(t)
	e.Must(t, 200, "POST", "data/s", `{"data":{}}`)
	const patchers, each = 8, 10
	var wg sync.WaitGroup
	for p := range patchers {
		wg.Go(func() {
			for i := range each {
				if a := e.Do("PATCH", "data/s", fmt.Sprintf(`{"data":{"k%d-%d":1}}`, p, i)); a.Err != nil {
					t.Error(a.Err)
				}
			}
		})
	}
	wg.Wait()
	var data map[string]int
	a := e.Must(t, 200, "GET", "data/s", "")
	if err := json.Unmarshal(a.Output.(kv.ReadResponse).Data, &data); err != nil || len(data) != patchers*each {
		t.Errorf("%d of %d patches are there, %v", len(data), patchers*each, err)
	}
}

// operation is what a call in a history came to.
type operation struct {
	version int // that was added, read or made active; 0 for nothing
}

type state struct{ newest, active, previous, pending int }

// history is what a secret may answer to calls that overlap: as if they had been
// made one after the other.
var history = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(st, in, out any) (bool, any) {
		s, o := st.(state), out.(operation)
		switch in.(string) {
		case "write":
			s.newest++
			if s.active != 0 {
				s.previous = s.active
			}
			s.active = s.newest
			return o.version == s.newest, s
		case "stage":
			s.newest++
			s.pending = s.newest
			return o.version == s.newest, s
		case "promote", "rollback":
			to := s.pending
			if in == "rollback" {
				to = s.previous
			}
			if to == 0 {
				return o.version == 0, s
			}
			if to != s.active {
				s.previous, s.active = s.active, to
			}
			if s.pending == to {
				s.pending = 0
			}
			return o.version == to, s
		}
		return o.version == s.active, s
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%v -> %d", in, out.(operation).version)
	},
}

// TestLinearizable checks that label moves, writes and reads that race answer as
// if they had been made one after the other.
func TestLinearizable(t *testing.T) {
	for range rounds(5) {
		e := openV2(t)
		e.Must(t, 204, "POST", "metadata/s", `{"max_versions":1000}`)
		var mu sync.Mutex
		var ops []porcupine.Operation
		verbs := []string{"write", "read", "stage", "promote", "read", "rollback", "read"}
		begun := time.Now()
		var wg sync.WaitGroup
		for client := range 5 {
			wg.Go(func() {
				for i := range 20 {
					verb := verbs[(i*3+client)%len(verbs)]
					call := time.Since(begun).Nanoseconds()
					out, err := perform(e, verb)
					end := time.Since(begun).Nanoseconds()
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					ops = append(ops, porcupine.Operation{ClientId: client, Input: verb, Call: call, Output: out, Return: end})
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if res := porcupine.CheckOperationsTimeout(history, ops, 20*time.Second); res != porcupine.Ok {
			t.Fatalf("the history is %s", res)
		}
	}
}

func perform(e *enginetest.Engine, verb string) (operation, error) {
	var a enginetest.Answer
	switch verb {
	case "write":
		a = e.Do("POST", "data/s", `{"data":{}}`)
	case "stage":
		a = e.Do("POST", "data/s", `{"data":{},"options":{"stage":"pending"}}`)
	case "read":
		a = e.Do("GET", "data/s", "")
	default:
		a = e.Do("POST", verb+"/s", `{}`)
	}
	switch out := a.Output.(type) {
	case kv.WriteResponse:
		return operation{version: int(out.Version)}, a.Err
	case kv.ReadResponse:
		if a.Status == 404 {
			a.Err = nil
		}
		return operation{version: int(out.Metadata.Version)}, a.Err
	case kv.LabelsResponse:
		if a.Status == 400 {
			a.Err = nil
		}
		return operation{version: int(out.Labels["active"])}, a.Err
	}
	return operation{}, a.Err
}
