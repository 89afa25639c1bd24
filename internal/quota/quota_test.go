package quota

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func opened(t testing.TB, e storage.Engine, root *[]byte) *barrier.Barrier {
	t.Helper()
	b := barrier.New(e, slog.New(slog.DiscardHandler))
	if *root == nil {
		key, err := barrier.NewRootKey()
		must(t, err)
		must(t, b.Initialize(context.Background(), key))
		*root = key
	}
	must(t, b.Open(context.Background(), append([]byte(nil), *root...)))
	return b
}

func newStore(t testing.TB) *Store {
	t.Helper()
	var root []byte
	s, err := Open(context.Background(), opened(t, memory.New(), &root))
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *Store) put(t testing.TB, q Quota) {
	t.Helper()
	if q.Kind == "" {
		q.Kind = Rate
	}
	if q.Kind == Rate && q.Interval == 0 {
		q.Interval = time.Second
	}
	if q.GroupBy == "" {
		q.GroupBy = ByAddress
	}
	must(t, s.Put(context.Background(), q))
}

// passes asks n times and returns how often it was let through.
func (s *Store) passes(n int, a Ask) (passed int) {
	for range n {
		if p, err := s.Admit(a); err == nil {
			p.Done()
			passed++
		}
	}
	return passed
}

func TestEveryQuotaThatARequestFallsUnderCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		s.put(t, Quota{Name: "all", Rate: 100, Inherit: true})
		s.put(t, Quota{Name: "team", Namespace: "team/", Rate: 50})
		s.put(t, Quota{Name: "secret", Namespace: "team/", Mount: "secret/", Rate: 20})
		s.put(t, Quota{Name: "data", Namespace: "team/", Mount: "secret/", Below: "data/app*", Rate: 5})
		s.put(t, Quota{Name: "exact", Namespace: "team/", Mount: "secret/", Below: "config", Rate: 1})
		s.put(t, Quota{Name: "role", Mount: "auth/jwt/", Role: "ci", Rate: 2})
		for _, c := range []struct {
			a    Ask
			want int
		}{
			{Ask{Namespace: "team/", Mount: "secret/", Below: "data/app/db"}, 5},
			{Ask{Namespace: "team/", Mount: "secret/", Below: "data/other"}, 20},
			{Ask{Namespace: "team/", Mount: "secret/", Below: "config"}, 1},
			{Ask{Namespace: "team/", Mount: "secret/", Below: "config/x"}, 20},
			{Ask{Namespace: "team/", Mount: "other/", Below: "x"}, 50},
			{Ask{Namespace: "team/dev/", Mount: "secret/", Below: "x"}, 100}, // team's is not inherited
			{Ask{Mount: "secret/", Below: "x"}, 100},
			{Ask{Mount: "auth/jwt/", Below: "login", Role: "ci"}, 2},
			{Ask{Mount: "auth/jwt/", Below: "login", Role: "dev"}, 100},
			{Ask{Below: "nowhere/x"}, 100},
			{Ask{Below: "sys/health"}, 200},
		} {
			time.Sleep(time.Hour) // every bucket is whole again
			c.a.Address = "10.0.0.1"
			if got := s.passes(200, c.a); got != c.want {
				t.Errorf("%+v passes %d times, want %d", c.a, got, c.want)
			}
			time.Sleep(time.Hour)
			if got := s.passes(1, c.a); got != 1 {
				t.Errorf("%+v does not pass an hour later", c.a)
			}
		}
	})
}

func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for group, want := range map[Grouping]int{ByAddress: 20, Together: 10, ByEntityOrAddress: 30, ByEntityOrTogether: 20} {
			s := newStore(t)
			s.put(t, Quota{Name: "q", Rate: 10, GroupBy: group})
			known := group == ByEntityOrAddress || group == ByEntityOrTogether
			passed := 0
			for range 100 {
				for _, a := range []Ask{{Address: "a"}, {Address: "b"}, {Address: "b", Entity: "e"}} {
					a.Known = known
					passed += s.passes(1, a)
				}
			}
			if passed != want {
				t.Errorf("grouped by %s, %d pass, want %d", group, passed, want)
			}
			if n := s.passes(5, Ask{Known: !known}); n != 5 {
				t.Errorf("grouped by %s it counts before, or after, who asks is known", group)
			}
		}
	})
}

func TestRefusalsSayWhenToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		must(t, s.SetConfig(t.Context(), Config{Headers: true}))
		s.put(t, Quota{Name: "q", Rate: 2, Interval: 10 * time.Second})
		a := Ask{Address: "a"}
		p, err := s.Admit(a)
		must(t, err)
		if p.Left == nil || p.Left.Limit != 2 || p.Left.Remaining != 1 {
			t.Errorf("left: %+v", p.Left)
		}
		s.passes(1, a)
		p, err = s.Admit(a)
		f := fault.From(err)
		if f.Kind != fault.Limited || f.RetryAfter < 4*time.Second || f.RetryAfter > 5*time.Second || p.Left.Remaining != 0 {
			t.Fatalf("%v, again in %v, left %+v", err, f.RetryAfter, p.Left)
		}
		time.Sleep(f.RetryAfter)
		if s.passes(2, a) != 1 {
			t.Error("it is not let through when it was told to come")
		}
		if s.Refused()["rate-limit/q"] != 2 {
			t.Errorf("refused: %v", s.Refused())
		}
		s.put(t, Quota{Name: "q", Rate: 2, Interval: 10 * time.Second, Block: time.Minute})
		s.passes(2, a)
		_, err = s.Admit(a)
		if again := fault.From(err).RetryAfter; again != time.Minute {
			t.Errorf("blocked for %v", again)
		}
		time.Sleep(59 * time.Second)
		if s.passes(1, a) != 0 {
			t.Error("a blocked caller passes")
		}
		time.Sleep(time.Second)
		if s.passes(1, a) != 1 {
			t.Error("a caller is blocked for longer than was said")
		}
	})
}

// In no window do more than rate*window+burst pass, whatever the times and callers.
func TestNeverMoreThanTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLimit(Quota{Kind: Rate, Rate: float64(rapid.IntRange(1, 50).Draw(t, "rate")), Interval: time.Duration(rapid.IntRange(1, 100).Draw(t, "interval")) * time.Second, GroupBy: Together})
		now := time.Now()
		var passed []time.Time
		for range rapid.IntRange(1, 400).Draw(t, "asks") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause")))
			if _, again := l.take("", now, 1); again == 0 {
				passed = append(passed, now)
			} else if _, early := l.take("", now.Add(again-time.Millisecond), 1); early == 0 && again > 2*time.Millisecond {
				t.Fatalf("it passes before the time it was told")
			}
		}
		for i, from := range passed {
			for n, to := range passed[i:] {
				most := float64(l.perSecond())*to.Sub(from).Seconds() + float64(l.burst()) + 1e-6
				if float64(n+1) > most {
					t.Fatalf("%d pass within %v, at most %v may", n+1, to.Sub(from), most)
				}
			}
		}
	})
}

func TestConcurrency(t *testing.T) {
	s := newStore(t)
	s.put(t, Quota{Name: "slow", Kind: Concurrency, Max: 3, GroupBy: Together, Mount: "secret/"})
	s.put(t, Quota{Name: "all", Kind: Concurrency, Max: 4, GroupBy: Together})
	a := Ask{Mount: "secret/", Below: "x"}
	var held []Pass
	for range 3 {
		p, err := s.Admit(a)
		must(t, err)
		held = append(held, p)
	}
	if _, err := s.Admit(a); !fault.Is(err, fault.Limited) {
		t.Fatalf("a fourth is let through: %v", err)
	}
	other, err := s.Admit(Ask{Mount: "other/"})
	must(t, err)
	if _, err := s.Admit(Ask{Mount: "other/"}); !fault.Is(err, fault.Limited) {
		t.Fatalf("a fifth of all is let through: %v", err)
	}
	held[0].Done()
	held[0].Done() // once is enough
	// The refusal by the outer quota gave back what the inner one counted.
	if _, err := s.Admit(a); err != nil {
		t.Errorf("a place that is free again is not given: %v", err)
	}
	other.Done()
	for _, p := range held[1:] {
		p.Done()
	}
}

func TestMoreCallersThanAreToldApart(t *testing.T) {
	l := newLimit(Quota{Kind: Rate, Rate: 1, Interval: time.Hour, GroupBy: ByAddress})
	now := time.Now()
	for i := range MaxGroups {
		if _, again := l.take(fmt.Sprint(i), now, 1); again != 0 {
			t.Fatal("the first request of a caller is refused")
		}
	}
	passed := 0
	for i := range 100 {
		if _, again := l.take(fmt.Sprint("new", i), now, 1); again == 0 {
			passed++
		}
	}
	if passed != 1 || len(l.buckets) > MaxGroups+1 {
		t.Errorf("%d further callers pass as one, %d are kept", passed, len(l.buckets))
	}
	if _, again := l.take("0", now, 1); again == 0 {
		t.Error("a caller that is known gets a new start")
	}
	if _, again := l.take("new", now.Add(2*time.Hour), 1); again != 0 || len(l.buckets) > 2 {
		t.Errorf("what is whole again is kept: %d", len(l.buckets))
	}
}

func TestWhatIsNoQuotaIsRefused(t *testing.T) {
	s := newStore(t)
	good := Quota{Name: "q", Kind: Rate, Rate: 1, Interval: time.Second, GroupBy: ByAddress}
	for what, change := range map[string]func(*Quota){
		"no name": func(q *Quota) { q.Name = "" }, "a slash": func(q *Quota) { q.Name = "a/b" },
		"no rate": func(q *Quota) { q.Rate = 0 }, "negative": func(q *Quota) { q.Rate = -1 }, "NaN": func(q *Quota) { q.Rate = math.NaN() },
		"infinite": func(q *Quota) { q.Rate = math.Inf(1) }, "huge": func(q *Quota) { q.Rate = MaxRate * 2 },
		"too short": func(q *Quota) { q.Interval = time.Second - 1 }, "too long": func(q *Quota) { q.Interval = MaxInterval + 1 },
		"block": func(q *Quota) { q.Block = -1 }, "group": func(q *Quota) { q.GroupBy = "moon" },
		"glob": func(q *Quota) { q.Mount, q.Below = "a/", "b*c" }, "role": func(q *Quota) { q.Mount, q.Below, q.Role = "a/", "b", "r" },
		"max": func(q *Quota) { q.Kind, q.Max = Concurrency, 0 },
	} {
		q := good
		change(&q)
		if err := s.Put(t.Context(), q); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, s.Put(t.Context(), good))
	twin := good
	twin.Name, twin.Rate = "twin", 7
	if err := s.Put(t.Context(), twin); !fault.Is(err, fault.Invalid) {
		t.Errorf("two for the same: %v", err)
	}
	edge := Quota{Name: "edge", Kind: Rate, Rate: MaxRate, Interval: MaxInterval, Block: MaxInterval, GroupBy: Together}
	must(t, s.Put(t.Context(), edge))
	if s.passes(1000, Ask{Address: "a"}) != 1 {
		t.Error("the strictest does not decide")
	}
	must(t, s.Delete(t.Context(), Rate, "q"))
	must(t, s.Delete(t.Context(), Rate, "q"))
	if s.Get(Rate, "q") != nil || len(s.List(Rate)) != 1 {
		t.Error("a deleted quota is there")
	}
}

// Nodes see each other's changes, and share what counts all callers together.
func TestNodesShareAQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memory.New()
		var root []byte
		ctx, cancel := context.WithCancel(t.Context())
		var nodes []*Store
		for i := range 3 {
			b := opened(t, e, &root)
			s, err := Open(ctx, b)
			must(t, err)
			go func() { _ = b.Follow(ctx) }()
			go func() { _ = s.Share(ctx, fmt.Sprint("node", i), func() int { return 3 }) }()
			nodes = append(nodes, s)
		}
		nodes[0].put(t, Quota{Name: "q", Rate: 100, GroupBy: Together})
		time.Sleep(time.Second)
		count := func(for_ time.Duration, asks ...int) (passed int) {
			for range int(for_ / (10 * time.Millisecond)) {
				for i, n := range asks {
					passed += nodes[i].passes(n, Ask{})
				}
				time.Sleep(10 * time.Millisecond)
			}
			return passed
		}
		count(20*time.Second, 3, 3, 3) // demand settles
		if n := count(20*time.Second, 3, 3, 3); n < 1900 || n > 2200 {
			t.Errorf("three nodes let %d through in 20 s, 2000 are the rate", n)
		}
		count(30*time.Second, 6, 0, 0) // all of it moves to one node
		if n := count(20*time.Second, 6, 0, 0); n < 1900 || n > 2200 {
			t.Errorf("one node of three lets %d through in 20 s, 2000 are the rate", n)
		}
		cancel()
		synctest.Wait()
		for _, s := range nodes {
			s.Close()
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{0, 1, 1000} {
		b.Run(fmt.Sprint(n, " quotas"), func(b *testing.B) {
			s := newStore(b)
			limits := map[string]*limit{}
			byMount := map[string][]*limit{}
			for i := range n {
				l := newLimit(Quota{Name: fmt.Sprint("q", i), Kind: Rate, Rate: MaxRate, Interval: time.Second, GroupBy: Together, Mount: fmt.Sprintf("m%d/", i)})
				limits[key(Rate, l.Name)] = l
				byMount["\x00"+l.Mount] = append(byMount["\x00"+l.Mount], l)
			}
			s.current.Store(&index{limits: limits, byMount: byMount})
			a := Ask{Mount: "m0/", Below: "data/app", Address: "10.0.0.1"}
			b.ReportAllocs()
			for b.Loop() {
				p, err := s.Admit(a)
				if err != nil {
					b.Fatal(err)
				}
				p.Done()
			}
		})
	}
}
