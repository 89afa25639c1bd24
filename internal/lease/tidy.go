package lease

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
)

// Tidied is what Tidy found.
type Tidied struct {
	Looked int // leases looked at
	Ended  int // whose token had ended, and that end now
	Due    int // that no job was to end, and are due again
}

// Tidy looks at every lease, a piece at a time: one whose token has ended ends, and
// one that nothing was to end is made due. Neither can be by what is written here;
// it is for stores that were mended by hand.
func (b *Book) Tidy(ctx context.Context) (sum Tidied, err error) {
	for after := ""; ; {
		var found Tidied
		var leases []*Lease
		if _, err := b.Engine.Update(ctx, func(t storage.Txn) (err error) {
			found = Tidied{}
			if leases, err = page(t, "", after, piece); err != nil {
				return err
			}
			for _, l := range leases {
				if err := b.mend(t, l, &found); err != nil {
					return err
				}
			}
			return nil
		}); err != nil || len(leases) == 0 {
			return sum, err
		}
		after = leases[len(leases)-1].Key
		sum = Tidied{sum.Looked + len(leases), sum.Ended + found.Ended, sum.Due + found.Due}
	}
}

func (b *Book) mend(t storage.Txn, l *Lease, found *Tidied) error {
	if l.Token != "" && l.Ending == nil {
		ended, err := b.Ended(t, l.Token)
		if err != nil {
			return err
		}
		if ended {
			found.Ended++
			return b.end(t, l, TokenEnd, time.Now())
		}
	}
	if l.Ending != nil && l.Ending.Aside {
		return nil
	}
	if l.Counted != l.tally() {
		if err := put(t, l); err != nil {
			return err
		}
	}
	_, due, err := b.queue.Due(t, l.Key)
	if err != nil || due {
		return err
	}
	found.Due++
	return b.queue.Schedule(t, l.Key, l.Expires)
}
