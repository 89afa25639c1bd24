package quota

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// limit is a quota and what it counted on this node.
type limit struct {
	Quota
	refused atomic.Uint64
	asked   atomic.Uint64 // requests that it saw, refused ones included

	mu      sync.Mutex
	buckets map[string]*bucket
	running map[string]int
}

// bucket is what one caller has left.
type bucket struct {
	limiter *rate.Limiter
	blocked time.Time // refused until then
}

func newLimit(q Quota) *limit {
	return &limit{Quota: q, buckets: map[string]*bucket{}, running: map[string]int{}}
}

// covers reports whether a request in the limit's mount falls under it.
func (l *limit) covers(a Ask) bool {
	if l.Role != "" {
		return a.Role == l.Role
	}
	if prefix, glob := strings.CutSuffix(l.Below, "*"); glob {
		return strings.HasPrefix(a.Below, prefix)
	}
	return l.Below == "" || l.Below == a.Below
}

// entities reports whether the quota counts entities.
func (l *limit) entities() bool {
	return l.GroupBy == ByEntityOrAddress || l.GroupBy == ByEntityOrTogether
}

// group is for whom a request counts.
func (l *limit) group(a Ask) string {
	switch {
	case l.GroupBy == Together:
		return ""
	case l.GroupBy != ByAddress && a.Entity != "":
		return "entity " + a.Entity
	case l.GroupBy == ByEntityOrTogether:
		return ""
	}
	return a.Address
}

// perSecond is how fast a bucket fills.
func (l *limit) perSecond() rate.Limit { return rate.Limit(l.Rate / l.Interval.Seconds()) }

// burst is how many requests may come at once.
func (l *limit) burst() int { return max(1, int(math.Ceil(l.Rate))) }

// take counts a request of a group; again is when it may come again, 0 when it may
// pass now. share is this node's part.
func (l *limit) take(group string, now time.Time, share float64) (left Left, again time.Duration) {
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(group, now)
	if speed := l.perSecond() * rate.Limit(share); b.limiter.Limit() != speed {
		b.limiter.SetLimitAt(now, speed)
		b.limiter.SetBurstAt(now, max(1, int(math.Ceil(float64(l.burst())*share))))
	}
	full := b.limiter.Burst()
	left = Left{Limit: full}
	if now.Before(b.blocked) {
		left.Reset = b.blocked.Sub(now)
		return left, left.Reset
	}
	if b.limiter.AllowN(now, 1) {
		has := b.limiter.TokensAt(now)
		left.Remaining = max(0, int(has))
		left.Reset = seconds((float64(full) - has) / float64(b.limiter.Limit()))
		return left, 0
	}
	again = seconds((1 - b.limiter.TokensAt(now)) / float64(b.limiter.Limit()))
	left.Reset = again
	if l.Block > 0 {
		b.blocked = now.Add(l.Block)
		again = l.Block
	}
	return left, max(again, time.Millisecond)
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, MaxInterval.Seconds()*2) * float64(time.Second))
}

// overflow is the group of those who came when as many as are told apart were active.
const overflow = "\x00others"

// bucket returns the bucket of a group. l.mu is held.
func (l *limit) bucket(group string, now time.Time) *bucket {
	if b := l.buckets[group]; b != nil {
		return b
	}
	if len(l.buckets) >= MaxGroups {
		l.sweep(now)
	}
	if len(l.buckets) >= MaxGroups {
		if b := l.buckets[overflow]; b != nil {
			return b
		}
		group = overflow
	}
	b := &bucket{limiter: rate.NewLimiter(l.perSecond(), l.burst())}
	b.limiter.SetLimitAt(now, l.perSecond())
	l.buckets[group] = b
	return b
}

// sweep forgets the buckets that are full: they are as if they were new.
func (l *limit) sweep(now time.Time) {
	for group, b := range l.buckets {
		if !now.Before(b.blocked) && b.limiter.TokensAt(now) >= float64(b.limiter.Burst()) {
			delete(l.buckets, group)
		}
	}
}

// acquire counts a request under way, and reports whether it may be one.
func (l *limit) acquire(group string, share float64) bool {
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running[group] >= max(1, int(math.Ceil(float64(l.Max)*share))) {
		return false
	}
	l.running[group]++
	return true
}

func (l *limit) release(group string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running[group]--; l.running[group] <= 0 {
		delete(l.running, group)
	}
}
