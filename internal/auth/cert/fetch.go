package cert

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/storage"
)

const (
	fetchEvery = time.Hour
	lookEvery  = time.Minute
	retryAfter = 5 * time.Minute // a fetch that failed, or a node that stopped while it fetched
)

// fetch gets a revocation list. Over http, where anybody on the way may have
// written it, an authority that a role names must have signed it.
func (m *Method) fetch(ctx context.Context, url string) (*x509.RevocationList, error) {
	raw, err := remote.Question{URL: url, Limit: maxCRL, Accept: "application/pkix-crl"}.Ask(ctx)
	if err != nil {
		return nil, err
	}
	list, err := parseCRL(raw)
	if err != nil || strings.HasPrefix(strings.ToLower(url), "https:") {
		return list, err
	}
	all, err := m.roles.get(ctx, m)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(all.authorities(), func(c *x509.Certificate) bool { return list.CheckSignatureFrom(c) == nil }) {
		return nil, errors.New("it came over http and is signed by no authority of a role; add the authority to a role's certificate, use https, or upload the list")
	}
	return list, nil
}

// run fetches the lists that have a URL anew until ctx ends.
func (m *Method) run(ctx context.Context) error {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		if err := errors.Join(m.refresh(ctx), m.sweep(ctx, time.Now())); err != nil && ctx.Err() == nil {
			m.log.Warn("revocation lists could not be looked at; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

// refresh fetches what is due.
func (m *Method) refresh(ctx context.Context) error {
	var due []string
	err := m.storage.View(ctx, func(r storage.Reader) error {
		due = nil
		return storage.All(r, crlPrefix, func(e storage.Entry) error {
			list, err := storage.Decode[crl](e.Key, e.Value, nil)
			if err == nil && list.due(time.Now()) {
				due = append(due, strings.TrimPrefix(e.Key, crlPrefix))
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, name := range due {
		if err := m.refetch(ctx, name); err != nil && ctx.Err() == nil {
			m.log.Warn("a revocation list could not be fetched; the one before still counts", "name", name, "error", err)
		}
	}
	return nil
}

// abandoned is when parts that no list names were left behind by a node that
// stopped, and are not those of a list that is being written.
const abandoned = time.Hour

// sweep removes parts that no list names.
func (m *Method) sweep(ctx context.Context, now time.Time) error {
	var left []string
	err := m.storage.View(ctx, func(r storage.Reader) error {
		left = nil
		named := map[string]bool{}
		err := storage.All(r, crlPrefix, func(e storage.Entry) error {
			list, err := storage.Decode[crl](e.Key, e.Value, nil)
			if err == nil {
				named[list.ID] = true
			}
			return err
		})
		if err != nil {
			return err
		}
		ids, err := r.List(partPrefix, "", 1000)
		for _, name := range ids {
			id := strings.TrimSuffix(name, "/")
			made, bad := uuid.Parse(id)
			if bad == nil && !named[id] && now.Sub(time.Unix(made.Time().UnixTime())) > abandoned {
				left = append(left, id)
			}
		}
		return err
	})
	for _, id := range left {
		if err == nil {
			err = m.removeParts(ctx, id)
		}
	}
	return err
}

// removeParts removes the parts of a list from the first on.
func (m *Method) removeParts(ctx context.Context, id string) error {
	for n, more := 0, true; more; n++ {
		_, err := m.storage.Update(ctx, func(t storage.Txn) error {
			_, err := t.Get(partKey(id, n))
			if more = err == nil; !more {
				return err
			}
			return t.Delete(partKey(id, n))
		})
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (l *crl) due(now time.Time) bool { return l.URL != "" && !now.Before(l.TryAt) }

// refetch fetches a list, unless another node does.
func (m *Method) refetch(ctx context.Context, name string) error {
	var mine *crl
	_, err := m.storage.Update(ctx, func(t storage.Txn) error {
		mine = nil
		list, err := storage.Load[crl](t, crlPrefix+name)
		if err != nil || list == nil || !list.due(time.Now()) {
			return err
		}
		list.TryAt = time.Now().UTC().Add(retryAfter)
		mine = list
		return storage.Save(t, crlPrefix+name, list)
	})
	if err != nil || mine == nil {
		return err
	}
	list, err := m.fetch(ctx, mine.URL)
	if err != nil {
		return err
	}
	switch {
	case list.ThisUpdate.Before(mine.ThisUpdate):
		return errors.New("it is older than the one before")
	case list.ThisUpdate.Equal(mine.ThisUpdate) && len(list.RevokedCertificateEntries) == mine.Serials:
		return m.postpone(ctx, name, mine.ID)
	}
	return m.replace(ctx, name, mine, list)
}

// postpone notes that a list is still the newest.
func (m *Method) postpone(ctx context.Context, name, id string) error {
	_, err := m.storage.Update(ctx, func(t storage.Txn) error {
		list, err := storage.Load[crl](t, crlPrefix+name)
		if err != nil || list == nil || list.ID != id {
			return err
		}
		list.TryAt = time.Now().UTC().Add(fetchEvery)
		return storage.Save(t, crlPrefix+name, list)
	})
	return err
}

// replace keeps a list that was fetched, unless somebody wrote another meanwhile.
func (m *Method) replace(ctx context.Context, name string, before *crl, list *x509.RevocationList) error {
	var now *crl
	err := m.storage.View(ctx, func(r storage.Reader) (err error) {
		now, err = storage.Load[crl](r, crlPrefix+name)
		return err
	})
	if err != nil || now == nil || now.ID != before.ID {
		return err
	}
	return m.keep(ctx, name, list, before.URL)
}
