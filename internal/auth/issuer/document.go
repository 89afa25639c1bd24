package issuer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/cofferhq/coffer/internal/fault"
)

// document is a fetched document of an issuer, of which the last good answer is
// kept.
type document[T any] struct {
	client *http.Client
	parse  func([]byte) (T, error)
	now    func() time.Time
	base   context.Context // ends with the issuer, not with the request that began a fetch
	flight singleflight.Group
	// patience is FetchTimeout.
	patience time.Duration

	mu    sync.Mutex
	url   string
	value T
	good  time.Time // when value was fetched; zero when there is none
	tried time.Time // when it was last tried
	err   error     // of the last try
}

func newDocument[T any](ctx context.Context, i *Issuer, client *http.Client, parse func([]byte) (T, error)) *document[T] {
	return &document[T]{client: client, parse: parse, base: ctx, patience: FetchTimeout, now: func() time.Time { return i.now() }}
}

// move says where the document is from here on. What was fetched from elsewhere is
// forgotten.
func (d *document[T]) move(url string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.url != url {
		var none T
		d.url, d.value, d.good, d.tried, d.err = url, none, time.Time{}, time.Time{}, nil
	}
}

// get returns the document. One that is older than Fresh, and with again every
// one, is fetched anew unless that was tried less than RefreshEvery ago; where that
// fails the last good one counts until it is Stale; and once it failed nobody waits
// for the next try, so that an issuer that hangs does not slow down every login.
func (d *document[T]) get(ctx context.Context, again bool) (value T, err error) {
	if value, ok := d.kept(again); ok {
		return value, nil
	}
	if d.mayTry() {
		done := d.flight.DoChan("", func() (any, error) { d.fetch(); return nil, nil })
		if !again && d.failing() {
			done = nothing
		}
		select {
		case <-done:
		case <-ctx.Done():
			return value, ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.good.IsZero() || d.now().Sub(d.good) >= Stale {
		if d.err == nil { // a fetch ended, and time went on past all bounds
			return value, fault.New(fault.Unavailable, "the issuer's %s has to be fetched again; try again", d.url)
		}
		return value, d.err
	}
	return d.value, nil
}

// nothing is what nobody has to wait for.
var nothing = func() chan singleflight.Result {
	c := make(chan singleflight.Result)
	close(c)
	return c
}()

// failing reports whether the last try failed, and there is a good document still.
func (d *document[T]) failing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err != nil && !d.good.IsZero() && d.now().Sub(d.good) < Stale
}

func (d *document[T]) kept(again bool) (value T, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.value, !again && !d.good.IsZero() && d.now().Sub(d.good) < Fresh
}

// mayTry reports whether the issuer may be asked, or is being asked.
func (d *document[T]) mayTry() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tried.IsZero() || d.now().Sub(d.tried) >= RefreshEvery
}

// fetch asks for the document. It sets tried when it ends, so that all who came
// meanwhile wait for the same answer; one who came just after that needs no other.
func (d *document[T]) fetch() {
	if !d.mayTry() {
		return
	}
	d.mu.Lock()
	url := d.url
	d.mu.Unlock()
	value, err := d.ask(url)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.url != url {
		return
	}
	if d.tried, d.err = d.now(), err; err == nil {
		d.value, d.good = value, d.tried
	}
}

// ask fetches the document once.
func (d *document[T]) ask(url string) (value T, err error) {
	ctx, cancel := context.WithTimeout(d.base, d.patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return value, fault.Wrap(fault.Unavailable, err, "the issuer's address %s is not one", clip(url))
	}
	request.Header.Set("Accept", "application/json")
	answer, err := d.client.Do(request)
	var wrong garbage
	var slow interface{ Timeout() bool }
	switch {
	case errors.As(err, &wrong):
		return value, fault.New(fault.Unavailable, "the issuer's %s %s", url, wrong)
	case errors.As(err, &slow) && slow.Timeout():
		return value, tooSlow(err, url)
	case err != nil:
		return value, fault.Wrap(fault.Unavailable, err, "the issuer cannot be reached at %s: %s", url, cause(err))
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return value, fault.New(fault.Unavailable, "the issuer answered %s at %s", clip(answer.Status), url)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, MaxDocument+1))
	switch {
	case ctx.Err() != nil: // which HTTP/2 does not always tell from an end
		return value, tooSlow(ctx.Err(), url)
	case err != nil:
		return value, fault.Wrap(fault.Unavailable, err, "the issuer's answer at %s broke off", url)
	case len(body) > MaxDocument:
		return value, fault.New(fault.Unavailable, "the issuer's answer at %s is larger than %d bytes", url, MaxDocument)
	}
	if value, err = d.parse(body); err != nil {
		return value, fault.Wrap(fault.Unavailable, err, "the issuer's document at %s %s", url, err)
	}
	return value, nil
}

func tooSlow(err error, url string) error {
	return fault.Wrap(fault.Unavailable, err, "the issuer did not answer at %s within %v; try again when it does", url, FetchTimeout)
}

// cause is what went wrong below net/http, without the URL that it repeats.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		if _, ok := inner.(interface{ Timeout() bool }); !ok {
			return inner
		}
		err = inner
	}
}
