package gateway

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// Whatever pieces a body is written in, all but its last bytes pass at once, and
// those when they are released.
func TestWithheld(t *testing.T) {
	for range 300 {
		var out, want bytes.Buffer
		h := &withheld{out: &out}
		for range rand.N(12) {
			piece := make([]byte, rand.N(100))
			for i := range piece {
				piece[i] = byte(rand.Uint32())
			}
			want.Write(piece)
			if n, err := h.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
			if left := want.Len() - out.Len(); left < min(keptBack, want.Len()) || left > 2*keptBack {
				t.Fatalf("%d bytes are held back of %d", left, want.Len())
			}
		}
		if err := h.release(); err != nil || !bytes.Equal(out.Bytes(), want.Bytes()) {
			t.Fatal("what came out is not what went in")
		}
	}
	gone := errors.New("gone")
	h := &withheld{out: failing{gone}}
	for range 3 {
		if _, err := h.Write(make([]byte, 20)); err != nil {
			if !errors.Is(err, gone) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Error("a failure is not passed on")
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
