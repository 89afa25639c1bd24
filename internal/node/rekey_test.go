package node_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/barrier"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
)

// generate makes a root token with shares and reads it.
func generate(t testing.TB, s *server, shares [][]byte) error {
	t.Helper()
	ctx, pad := context.Background(), strings.Repeat("p", len(token))
	defer s.GenerateCancel()
	st, err := s.GenerateInit(ctx, pad)
	if err != nil {
		return err
	}
	for _, share := range shares {
		if st, err = s.GenerateUpdate(ctx, st.Nonce, share); err != nil {
			return err
		}
	}
	if !st.Complete {
		return fmt.Errorf("%d of %d shares", st.Progress, st.Required)
	}
	mixed, err := base64.RawStdEncoding.DecodeString(st.Encoded)
	if err != nil {
		return err
	}
	for i := range mixed {
		mixed[i] ^= pad[i]
	}
	if string(mixed) != token {
		return fmt.Errorf("decoded %q", mixed)
	}
	return nil
}

func TestGenerateRoot(t *testing.T) {
	ctx, e := t.Context(), store(t)
	s := start(t, e, people())
	got, err := s.Init(ctx, node.InitRequest{Shares: 5, Threshold: 3})
	must(t, err)
	_, err = s.GenerateInit(ctx, token)
	wantKind(t, err, fault.Sealed)
	must(t, s.give(t, got.Shares[:3]))
	_, err = s.GenerateInit(ctx, "short")
	wantKind(t, err, fault.Invalid)
	_, err = s.GenerateUpdate(ctx, "", got.Shares[0])
	wantKind(t, err, fault.Invalid)
	st, err := s.GenerateInit(ctx, token)
	must(t, err)
	_, err = s.GenerateInit(ctx, token)
	wantKind(t, err, fault.Invalid)
	_, err = s.GenerateUpdate(ctx, "other nonce", got.Shares[0])
	wantKind(t, err, fault.Invalid)
	st, err = s.GenerateUpdate(ctx, st.Nonce, got.Shares[0])
	must(t, err)
	if st.Progress != 1 || st.Required != 3 || !st.Started || st.Complete {
		t.Fatalf("status %+v", st)
	}
	s.GenerateCancel()
	must(t, generate(t, s, got.Shares[2:]))
	for _, n := range []int{0, 1, 2} {
		if generate(t, s, got.Shares[:n]) == nil {
			t.Fatalf("%d shares made a root token", n)
		}
	}
}

// Whoever can write to the disk can put a seal of his own into the record. His
// shares must not pass for those of the people who hold the real ones.
func TestForgedSharesMakeNoRootToken(t *testing.T) {
	for _, real := range []string{"keyfile", "shamir", "recovery"} {
		t.Run(real, func(t *testing.T) {
			ctx, e := t.Context(), store(t)
			s := start(t, e, file(t, filepath.Join(t.TempDir(), "key")))
			request := node.InitRequest{}
			switch real {
			case "shamir":
				s = start(t, e, people())
				request = node.InitRequest{Shares: 3, Threshold: 2}
			case "recovery":
				request = node.InitRequest{RecoveryShares: 3, RecoveryThreshold: 2}
			}
			got, err := s.Init(ctx, request)
			must(t, err)
			must(t, s.give(t, got.Shares))

			key := shamir.NewKey()
			forger, err := shamir.Open(key)
			must(t, err)
			forgedRoot, err := barrier.NewRootKey()
			must(t, err)
			var rec *seal.Record
			must(t, e.View(ctx, func(r storage.Reader) (err error) { rec, err = seal.Load(r); return err }))
			named := seal.Named{Name: shamir.Name, Kind: shamir.Name, Seal: forger}
			if rec.Has(shamir.Name) {
				must(t, rec.Replace(ctx, named, forgedRoot))
			} else {
				must(t, rec.Add(ctx, named, forgedRoot))
			}
			rec.Shares = &seal.Shares{Shares: 3, Threshold: 2}
			_, err = e.Update(ctx, rec.Put)
			must(t, err)
			shares, err := shamir.Split(key, 3, 2)
			must(t, err)
			wantKind(t, generate(t, s, shares[:2]), fault.Invalid)
			st, err := s.RekeyInit(ctx, node.RekeyRequest{Shares: 1, Threshold: 1})
			must(t, err)
			_, err = s.RekeyUpdate(ctx, st.Nonce, shares[0])
			must(t, err)
			_, err = s.RekeyUpdate(ctx, st.Nonce, shares[1])
			wantKind(t, err, fault.Invalid)
		})
	}
}

// rekeyed gives old shares and returns what the last one was answered.
func rekeyed(t testing.TB, s *server, r node.RekeyRequest, old [][]byte) node.RekeyStatus {
	t.Helper()
	ctx := context.Background()
	st, err := s.RekeyInit(ctx, r)
	must(t, err)
	nonce := st.Nonce
	for _, share := range old {
		st, err = s.RekeyUpdate(ctx, nonce, share)
		must(t, err)
	}
	if !st.Complete || len(st.NewShares) != r.Shares {
		t.Fatalf("rekey: %+v", st)
	}
	return st
}

func TestRekey(t *testing.T) {
	ctx, e := t.Context(), store(t)
	s := start(t, e, people())
	got, err := s.Init(ctx, node.InitRequest{Shares: 3, Threshold: 2})
	must(t, err)
	old := got.Shares
	must(t, s.give(t, old[:2]))
	_, err = s.RekeyInit(ctx, node.RekeyRequest{Shares: 1, Threshold: 2})
	wantKind(t, err, fault.Invalid)

	fresh := rekeyed(t, s, node.RekeyRequest{Shares: 5, Threshold: 4}, old[1:]).NewShares
	if st := s.status(t); st.Shares != 5 || st.Threshold != 4 {
		t.Fatalf("after rekey: %+v", st)
	}
	must(t, s.Seal(ctx))
	wantKind(t, s.give(t, append(old, fresh[0])), fault.Invalid)
	must(t, s.give(t, fresh[1:]))
	s.wantSealed(t, false)
	must(t, s.RotateRoot(ctx)) // under the new key, which nobody has to give

	// With verification the old shares stay in force until the new were given.
	out := rekeyed(t, s, node.RekeyRequest{Shares: 2, Threshold: 2, Verify: true}, fresh[:4])
	_, err = s.RekeyVerify(ctx, "other nonce", out.NewShares[0])
	wantKind(t, err, fault.Invalid)
	_, err = s.RekeyVerify(ctx, out.VerifyNonce, out.NewShares[0])
	must(t, err)
	_, err = s.RekeyVerify(ctx, out.VerifyNonce, append(make([]byte, 32), out.NewShares[0][32]^0x80|1))
	wantKind(t, err, fault.Invalid)
	if st := s.status(t); st.Threshold != 4 {
		t.Fatalf("in force before verification: %+v", st)
	}
	st, err := s.RekeyStatus(ctx)
	must(t, err)
	for _, share := range out.NewShares {
		st, err = s.RekeyVerify(ctx, st.VerifyNonce, share)
		must(t, err)
	}
	if !st.Complete {
		t.Fatalf("verified: %+v", st)
	}
	must(t, s.Seal(ctx))
	must(t, s.give(t, out.NewShares))
	s.wantSealed(t, false)

	// Cancelled: nothing changes.
	rekeyed(t, s, node.RekeyRequest{Shares: 1, Threshold: 1, Verify: true}, out.NewShares)
	s.RekeyCancel()
	if st, err := s.RekeyStatus(ctx); err != nil || st.Started {
		t.Fatalf("after cancel: %+v, %v", st, err)
	}
	must(t, s.Seal(ctx))
	must(t, s.give(t, out.NewShares))
	s.wantSealed(t, false)
}

func TestRecoverySharesAreReplaced(t *testing.T) {
	ctx, e := t.Context(), store(t)
	s := start(t, e, file(t, filepath.Join(t.TempDir(), "key")))
	_, err := s.Init(ctx, node.InitRequest{})
	must(t, err)
	_, err = s.RekeyInit(ctx, node.RekeyRequest{Shares: 1, Threshold: 1})
	wantKind(t, err, fault.Invalid) // nobody holds shares
	old, err := s.GiveShares(ctx, 3, 2)
	must(t, err)
	_, err = s.GiveShares(ctx, 3, 2)
	wantKind(t, err, fault.Invalid)
	must(t, generate(t, s, old[:2]))
	fresh := rekeyed(t, s, node.RekeyRequest{Shares: 4, Threshold: 3}, old[1:]).NewShares
	if generate(t, s, old) == nil {
		t.Fatal("replaced recovery shares still count")
	}
	must(t, generate(t, s, fresh[1:]))
}
