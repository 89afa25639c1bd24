// Package shamir splits a secret into shares of which any threshold rebuild it
// and fewer say nothing about it (Shamir, "How to share a secret", 1979), and
// is the seal that people open with such shares.
//
// A share is laid out as Vault's: one byte for each byte of the secret, then
// the x-coordinate. Sharing detects no errors: a wrong share yields a wrong
// secret, which its use (an AEAD key) tells.
package shamir

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// MaxShares is the most shares there can be: one for each x but 0.
const MaxShares = 255

// Check returns an error if a key cannot be split into shares with threshold.
func Check(shares, threshold int) error {
	switch {
	case shares < 1 || shares > MaxShares:
		return fmt.Errorf("shares must be 1 to %d, not %d", MaxShares, shares)
	case threshold < 1 || threshold > shares:
		return fmt.Errorf("threshold must be 1 to the number of shares (%d), not %d", shares, threshold)
	case shares > 1 && threshold == 1:
		return errors.New("threshold must be greater than one for multiple shares")
	}
	return nil
}

// Split returns the shares of secret, each one byte longer than it. With one
// share there is nothing to hide, but the layout is the same.
func Split(secret []byte, shares, threshold int) ([][]byte, error) {
	if err := Check(shares, threshold); err != nil {
		return nil, err
	}
	if len(secret) == 0 {
		return nil, errors.New("there is no secret to split")
	}
	xs, err := coordinates(shares)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, shares)
	for i := range out {
		out[i] = make([]byte, len(secret)+1)
		out[i][len(secret)] = xs[i]
	}
	polynomial := make([]byte, threshold)
	defer clear(polynomial)
	for b, s := range secret {
		if _, err := rand.Read(polynomial); err != nil {
			return nil, err
		}
		polynomial[0] = s
		for i, x := range xs {
			out[i][b] = eval(polynomial, x)
		}
	}
	return out, nil
}

// coordinates returns n distinct bytes other than 0 in random order, so that a
// share does not tell how many there are.
func coordinates(n int) ([]byte, error) {
	all := make([]byte, MaxShares)
	for i := range all {
		all[i] = byte(i + 1)
	}
	for i := len(all) - 1; i > 0; i-- {
		j, err := below(i + 1)
		if err != nil {
			return nil, err
		}
		all[i], all[j] = all[j], all[i]
	}
	return all[:n], nil
}

// below returns a random number from 0 to n-1, n at most 256, without bias.
func below(n int) (int, error) {
	var b [1]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		if int(b[0]) < 256/n*n {
			return int(b[0]) % n, nil
		}
	}
}

// Combine rebuilds the secret from at least threshold of its shares. Fewer, or
// shares of another secret, yield a wrong one without an error.
func Combine(shares [][]byte) ([]byte, error) {
	if len(shares) == 0 {
		return nil, errors.New("no shares given")
	}
	n := len(shares[0]) - 1
	if n < 1 {
		return nil, errors.New("a share has at least two bytes")
	}
	var seen [256]bool
	xs := make([]byte, len(shares))
	for i, s := range shares {
		if len(s) != n+1 {
			return nil, errors.New("the shares differ in length: they are not of one secret")
		}
		x := s[n]
		if x == 0 || seen[x] {
			return nil, errors.New("a share is malformed or given twice")
		}
		seen[x], xs[i] = true, x
	}
	secret := make([]byte, n)
	for i, s := range shares {
		// Lagrange's basis polynomial of share i at 0.
		basis := byte(1)
		for j, x := range xs {
			if j != i {
				basis = mul(basis, mul(x, inv(x^xs[i])))
			}
		}
		for b := range secret {
			secret[b] ^= mul(s[b], basis)
		}
	}
	return secret, nil
}
