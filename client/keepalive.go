package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// ErrEnding is in the error of KeepAlive for a token that will end and cannot be
// renewed any more: get another while this one still works.
var ErrEnding = errors.New("the token can be renewed no more")

// KeepAlive renews a token, each time when about two thirds of its life are
// over, until that cannot be done any more or ctx ends; run it in a goroutine.
// renewed, if not nil, is called after each renewal.
//
// It returns nil at once for a token that never ends; the context's error when
// ctx ends; and an error with ErrEnding in it when the token should be
// replaced. That is before the token ends: when its greatest lifetime is
// reached, when it is not renewable and two thirds of its life are over, or
// when the server refuses to renew it. Only when the server is away does
// KeepAlive go on trying until the token's end.
func (t Tokens) KeepAlive(ctx context.Context, token *Auth, renewed func(*Auth)) error {
	k := keeper{tokens: t, ttl: token.TTL.Duration(), renewable: token.Renewable}
	if token.Token != "" {
		k.tokens = t.client.WithToken(token.Token).Token()
	}
	if k.ttl <= 0 {
		return nil
	}
	k.end = time.Now().Add(k.ttl)
	for {
		if !wait(ctx, twoThirds(k.ttl)) {
			return context.Cause(ctx)
		}
		if !k.renewable {
			return fmt.Errorf("%w: it is not renewable", ErrEnding)
		}
		auth, err := k.renew(ctx)
		if err != nil {
			return err
		}
		if renewed != nil {
			renewed(auth)
		}
		if k.last {
			return fmt.Errorf("%w: its greatest lifetime is reached", ErrEnding)
		}
	}
}

// keeper is what is known of a token that is kept alive.
type keeper struct {
	tokens    Tokens
	ttl       time.Duration // when it was last renewed
	end       time.Time
	renewable bool
	last      bool // the renewal moved the end no further
}

// renew renews the token, and tries on while the server is away.
func (k *keeper) renew(ctx context.Context) (*Auth, error) {
	for {
		asked := time.Now()
		auth, err := k.tokens.renewBefore(ctx, k.end)
		if err == nil {
			// A renewal that is not cut short moves the end by the time since the
			// last one, more than half of the lifetime. Lifetimes are told in
			// whole seconds.
			before, little := k.end, min(time.Second, k.ttl/4)
			k.ttl, k.renewable = auth.TTL.Duration(), auth.Renewable
			k.end = asked.Add(k.ttl)
			k.last = k.end.Sub(before) <= little
			return auth, nil
		}
		switch left := time.Until(k.end); {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case refused(err), left <= 0:
			return nil, fmt.Errorf("%w: %w", ErrEnding, err)
		default:
			// Ever closer together, so that the last tries are near the end.
			if !wait(ctx, min(left, max(left/8+rand.N(left/8+1), time.Second))) {
				return nil, context.Cause(ctx)
			}
		}
	}
}

func (t Tokens) renewBefore(ctx context.Context, end time.Time) (*Auth, error) {
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	return t.RenewSelf(ctx, 0)
}

// refused reports whether the server has decided not to renew, which trying
// again would not change.
func refused(err error) bool {
	return has(err, func(e *Error) bool {
		return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests
	})
}

// twoThirds is up to a tenth of d less than two thirds of it, so that tokens
// that were made together are not renewed together.
func twoThirds(d time.Duration) time.Duration { return d/3*2 - rand.N(d/10+1) }

// wait waits, and reports whether ctx is still on after it.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
