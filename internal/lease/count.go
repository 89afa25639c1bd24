package lease

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
)

// Leases are counted by what they are bounded by: their holder, their mount, and
// their path. A count is written in the transaction that changes what it counts, so
// that no crash parts them; each is spread over countShards rows, so that leases that
// come and go together seldom write the same row. A lease's row says what it is
// counted as (tally).

const (
	countPrefix  = Prefix + "count/"
	holderCounts = countPrefix + "holder/"  // + holder + "/" + shard
	mountCounts  = countPrefix + "mount/"   // + namespace's id + ":" + mount's UUID + "/" + shard
	pathCounts   = countPrefix + "path/"    // + mount's UUID + "/" + path + "/" + shard
	failCounts   = countPrefix + "failing/" // + shard
	asideCounts  = countPrefix + "aside/"   // + shard

	countShards = 8
	// countKeys is how many counts one change of a lease writes at most: three that it
	// is held by, and one of how its end goes; or two of the latter.
	countKeys = 4
)

// tally is what a lease is counted as.
type tally uint8

const (
	held    tally = 1 << iota // what it is for is there, as far as is known
	failing                   // it could not be taken back, and is tried again
	aside                     // it waits for people
)

// tally is what the lease is to be counted as.
func (l *Lease) tally() tally {
	switch e := l.Ending; {
	case e == nil:
		return held
	case e.Gone:
		return 0
	case e.Aside:
		return held | aside
	case e.Error != "":
		return held | failing
	}
	return held
}

// holder names to whom a lease was lent, for counting: the entity, or the token of
// one without; "" for a token that is neither an entity's nor kept.
func (l *Lease) holder() string {
	switch {
	case l.Entity != "":
		return "entity:" + l.Entity
	case l.Token != "":
		return "token:" + l.Token
	}
	return ""
}

// recount counts a lease as what it is now to be, and notes that in it; gone says
// that it is no more.
func recount(t storage.Txn, l *Lease, gone bool) error {
	was, is := l.Counted, l.tally()
	if gone {
		is = 0
	}
	if was == is {
		return nil
	}
	l.Counted = is
	shard := shardOf(l.Key)
	for _, c := range []struct {
		what tally
		keys []string
	}{
		{held, []string{holderCounts + l.holder() + "/", mountCounts + l.Namespace + ":" + l.Mount() + "/", pathCounts + l.Mount() + "/" + l.Path() + "/"}},
		{failing, []string{failCounts}},
		{aside, []string{asideCounts}},
	} {
		by := 0
		switch {
		case is&c.what != 0 && was&c.what == 0:
			by = 1
		case is&c.what == 0 && was&c.what != 0:
			by = -1
		default:
			continue
		}
		for _, key := range c.keys {
			if key == holderCounts+"/" {
				continue
			}
			if err := count(t, key+shard, by); err != nil {
				return err
			}
		}
	}
	return nil
}

// shardOf is the part of the counts that a lease is in.
func shardOf(key string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return strconv.Itoa(int(h.Sum32() % countShards))
}

// count adds to a count; one of nothing has no row.
func count(t storage.Txn, key string, by int) error {
	n, err := counted(t.Get(key))
	if err != nil {
		return fmt.Errorf("row %q: %w", key, err)
	}
	if n += by; n <= 0 {
		return t.Delete(key)
	}
	return t.Put(key, strconv.AppendInt(nil, int64(n), 10))
}

func counted(row []byte, err error) (int, error) {
	if errors.Is(err, storage.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(row))
}

// Group is a group of leases that are counted together.
type Group struct{ prefix, below string }

// OfNamespace are the leases of a namespace's mounts, by its id, those of namespaces
// below it not among them.
func OfNamespace(id string) Group { return Group{prefix: mountCounts + id + ":"} }

// OfMount are the leases of a mount.
func OfMount(namespace, uuid string) Group {
	return Group{prefix: mountCounts + namespace + ":" + uuid + "/"}
}

// OfPath are the leases lent at a path below a mount; a * at its end is any ending.
func OfPath(uuid, below string) Group {
	return Group{prefix: pathCounts + uuid + "/", below: strings.Trim(below, "/")}
}

// All are all leases.
func All() Group { return Group{prefix: mountCounts} }

// count adds up the group's counts.
func (g Group) count(r storage.Reader) (n int, err error) {
	begin, glob := strings.CutSuffix(g.below, "*")
	prefix := g.prefix + begin
	if g.below != "" && !glob {
		prefix += "/"
	}
	err = storage.All(r, prefix, func(e storage.Entry) error {
		if g.below != "" {
			path, _ := cutLast(strings.TrimPrefix(e.Key, g.prefix))
			if !strings.HasPrefix(path, begin) || !glob && path != begin {
				return nil // the shard's name, or a path below, looked like it
			}
		}
		part, err := counted(e.Value, nil)
		if err != nil {
			return fmt.Errorf("row %q: %w", e.Key, err)
		}
		n += part
		return nil
	})
	return n, err
}

// cutLast cuts the shard off a key.
func cutLast(key string) (path, shard string) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return key, ""
	}
	return key[:i], key[i+1:]
}

// Bound is a limit on how many leases there may be in some groups together.
type Bound struct {
	Max    int
	Groups []Group
	// Refuse words that there are as many.
	Refuse func(n int) error
}

func (b *Bound) count(r storage.Reader) (sum int, err error) {
	for _, g := range b.Groups {
		n, err := g.count(r)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// nearBound is how many leases before a bound it is counted in the transaction that
// adds one: with certainty, and with conflicts of those who lend at once. Further
// away it is counted before the transaction. A bound can be passed only if as many
// leases are being made at the same instant.
const nearBound = 256

// room returns those of the bounds of a new lease that are near, or the refusal of one
// that is reached.
func (b *Book) room(ctx context.Context, by route.Caller, l Lease) (near []Bound, err error) {
	var bounds []Bound
	if b.Bounds != nil {
		bounds = b.Bounds(&l)
	}
	most := 0
	if b.MaxHeld != nil {
		most = b.MaxHeld()
	}
	if len(bounds) == 0 && most <= 0 {
		return nil, nil
	}
	err = b.Engine.View(ctx, func(r storage.Reader) error {
		near = nil
		who, err := b.Borrower(r, by)
		if err != nil {
			return err
		}
		bounds := bounds
		if l.Token = who.Token; most > 0 && l.holder() != "" {
			bounds = append([]Bound{l.capped(most)}, bounds...)
		}
		for _, bound := range bounds {
			n, err := bound.count(r)
			if err != nil {
				return err
			}
			if n >= bound.Max {
				return bound.Refuse(n)
			}
			if n+nearBound >= bound.Max {
				near = append(near, bound)
			}
		}
		return nil
	})
	return near, err
}

// capped is the bound of what one holder may have.
func (l *Lease) capped(most int) Bound {
	whose := "the entity " + l.Entity
	if l.Entity == "" {
		whose = "this token, which has no entity,"
	}
	return Bound{Max: most, Groups: []Group{{prefix: holderCounts + l.holder() + "/"}}, Refuse: func(n int) error {
		return fault.New(fault.Limited, "%s holds %d leases, and may hold %d at once: revoke what it needs no more (`coffer lease revoke ID`), have its program use what it was lent until that ends, or raise max_leases_per_entity in sys/quotas/config", whose, n, most)
	}}
}

// within refuses where a bound is reached.
func within(r storage.Reader, bounds []Bound) error {
	for _, bound := range bounds {
		n, err := bound.count(r)
		if err != nil {
			return err
		}
		if n >= bound.Max {
			return bound.Refuse(n)
		}
	}
	return nil
}

// Count returns how many leases groups have together: those whose account is there,
// as far as is known, also while they end.
func (b *Book) Count(ctx context.Context, groups ...Group) (n int, err error) {
	err = b.Engine.View(ctx, func(r storage.Reader) error {
		bound := Bound{Groups: groups}
		n, err = bound.count(r)
		return err
	})
	return n, err
}

// Stats are the figures of all leases, of all nodes.
type Stats struct {
	Held    int // what they are for is there, as far as is known
	Failing int // could not be taken back yet, and are tried again
	Aside   int // wait for people
}

// Stats returns the figures.
func (b *Book) Stats(ctx context.Context) (s Stats, err error) {
	err = b.Engine.View(ctx, func(r storage.Reader) error {
		for _, c := range []struct {
			to     *int
			prefix string
		}{{&s.Held, mountCounts}, {&s.Failing, failCounts}, {&s.Aside, asideCounts}} {
			if *c.to, err = (Group{prefix: c.prefix}).count(r); err != nil {
				return err
			}
		}
		return nil
	})
	return s, err
}
