package shamir

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/sealtest"
)

// Products and inverses that FIPS 197 (sections 4.2 and 5.1.1) and its
// appendices work out.
func TestFieldVectors(t *testing.T) {
	for _, v := range [][3]byte{
		{0x57, 0x83, 0xc1}, {0x57, 0x13, 0xfe}, {0x57, 0x02, 0xae}, {0x57, 0x04, 0x47},
		{0x57, 0x08, 0x8e}, {0x57, 0x10, 0x07}, {0x53, 0xca, 0x01}, {0xff, 0x00, 0x00}, {0xb6, 0x01, 0xb6},
	} {
		if got := mul(v[0], v[1]); got != v[2] {
			t.Errorf("%02x·%02x = %02x, want %02x", v[0], v[1], got, v[2])
		}
		if got := mul(v[1], v[0]); got != v[2] {
			t.Errorf("%02x·%02x = %02x, want %02x", v[1], v[0], got, v[2])
		}
	}
	if inv(0x53) != 0xca || inv(1) != 1 || inv(0) != 0 {
		t.Error("inverses")
	}
}

func TestFieldLaws(t *testing.T) {
	powers := map[byte]bool{}
	g := byte(1)
	for a := range 256 {
		if a > 0 {
			powers[g] = true
			g = mul(g, 3) // 3 generates the field
			if mul(byte(a), inv(byte(a))) != 1 {
				t.Fatalf("inverse of %02x", a)
			}
		}
		for b := range 256 {
			x, y := byte(a), byte(b)
			if mul(x, y) != mul(y, x) || mul(x, y^0x35) != mul(x, y)^mul(x, 0x35) || mul(mul(x, y), 0x35) != mul(x, mul(y, 0x35)) {
				t.Fatalf("laws at %02x, %02x", a, b)
			}
			if a != 0 && b != 0 && mul(x, y) == 0 {
				t.Fatalf("zero divisors %02x, %02x", a, b)
			}
		}
	}
	if len(powers) != 255 {
		t.Fatalf("3 generates %d elements", len(powers))
	}
}

// Shares worked out by hand from f(x) = 0x57 + 0x83·x, in the layout that
// Vault's shares have.
func TestCombineVector(t *testing.T) {
	shares := [][]byte{{0x57 ^ 0x83, 1}, {0x57 ^ mul(0x83, 2), 2}, {0x57 ^ 0xc1, 0x57}}
	for i := range shares {
		for j := range shares {
			if i == j {
				continue
			}
			if got, err := Combine([][]byte{shares[i], shares[j]}); err != nil || !bytes.Equal(got, []byte{0x57}) {
				t.Errorf("shares %d and %d: %x, %v", i, j, got, err)
			}
		}
	}
}

func TestAnyThresholdRebuildsAndFewerDoNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 16, 40).Draw(t, "secret")
		threshold := rapid.IntRange(2, 12).Draw(t, "threshold")
		n := rapid.IntRange(threshold, 20).Draw(t, "shares")
		shares, err := Split(secret, n, threshold)
		if err != nil {
			t.Fatal(err)
		}
		mixed := rapid.Permutation(shares).Draw(t, "order")
		used := rapid.IntRange(threshold, n).Draw(t, "used")
		got, err := Combine(mixed[:used])
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("%d of %d shares: %x, %v", used, n, got, err)
		}
		fewer, err := Combine(mixed[:threshold-1])
		if err != nil || bytes.Equal(fewer, secret) {
			t.Fatalf("%d shares below the threshold %d rebuild the secret", threshold-1, threshold)
		}
		seen := map[byte]bool{}
		for _, s := range shares {
			x := s[len(s)-1]
			if x == 0 || seen[x] || len(s) != len(secret)+1 {
				t.Fatalf("share %x", s)
			}
			seen[x] = true
		}
	})
}

// Fewer shares than the threshold say nothing: over many splits of one secret
// each byte of a share takes every value about equally often.
func TestASingleShareIsUniform(t *testing.T) {
	var counts [256]int
	const rounds = 256 * 100
	for range rounds {
		shares, err := Split([]byte{0x42}, 2, 2)
		if err != nil {
			t.Fatal(err)
		}
		counts[shares[0][0]]++
	}
	chi := 0.0
	for _, n := range counts {
		d := float64(n) - 100
		chi += d * d / 100
	}
	if chi > 400 { // 255 degrees of freedom: beyond this once in 10^8 runs
		t.Errorf("chi squared %f", chi)
	}
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		n, threshold int
		ok           bool
	}{
		{1, 1, true}, {2, 2, true}, {255, 255, true}, {255, 2, true}, {5, 3, true},
		{0, 0, false}, {1, 0, false}, {1, 2, false}, {256, 3, false}, {5, 6, false}, {5, 1, false}, {-1, -1, false},
	} {
		shares, err := Split([]byte("secret"), tt.n, tt.threshold)
		if (err == nil) != tt.ok || err == nil && len(shares) != tt.n {
			t.Errorf("%d of %d: %v", tt.threshold, tt.n, err)
		}
	}
	if _, err := Split(nil, 3, 2); err == nil {
		t.Error("split nothing")
	}
	for name, shares := range map[string][][]byte{
		"none": nil, "empty": {{}}, "short": {{1}}, "twice": {{1, 1}, {2, 1}}, "zero": {{1, 0}, {2, 1}}, "lengths": {{1, 1}, {2, 2, 2}},
	} {
		if _, err := Combine(shares); err == nil {
			t.Errorf("combined %s", name)
		}
	}
}

func FuzzCombine(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4}, 2)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 1 || n > len(data) {
			return
		}
		var shares [][]byte
		for ; len(data) >= n; data = data[n:] {
			shares = append(shares, data[:n])
		}
		if secret, err := Combine(shares); err == nil && len(secret) != n-1 {
			t.Errorf("%d bytes from shares of %d", len(secret), n)
		}
	})
}

func TestSeal(t *testing.T) {
	sealtest.Run(t, func(t *testing.T) (seal.Seal, func() seal.Seal) {
		key := NewKey()
		again := func() seal.Seal {
			s, err := Open(key)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		return again(), again
	})
	if _, err := Open(make([]byte, 31)); !errors.Is(err, ErrWrongKey) {
		t.Errorf("short key: %v", err)
	}
	if _, err := Kind.Open(context.Background(), nil); !errors.Is(err, seal.ErrShares) {
		t.Errorf("opened without shares: %v", err)
	}
	if _, err := Kind.Open(context.Background(), map[string]string{"x": "y"}); err == nil || errors.Is(err, seal.ErrShares) {
		t.Errorf("unknown setting: %v", err)
	}
}

func BenchmarkSplit5of3(b *testing.B) {
	key := NewKey()
	for b.Loop() {
		if _, err := Split(key, 5, 3); err != nil {
			b.Fatal(err)
		}
	}
}
