package password

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"io"
	"math/bits"
	mathrand "math/rand/v2"

	"github.com/cofferhq/coffer/internal/wire"
)

// tries is how many random strings are held against the rules before one is made
// to meet them. Of a policy that one string in fifty meets, fewer than one
// password in a hundred million is made.
const tries = 1000

// Generate returns a new password. It is drawn evenly from all strings that meet
// the policy. Where so few of them do that none is met with in some time, the
// characters that each rule needs are drawn from its set, the others from all
// sets, and their order is shuffled: such a password is as long, though not every
// string is then equally likely. Either way takes bounded time.
func (p *Policy) Generate() wire.Secret {
	r := mathrand.New(source{bufio.NewReaderSize(rand.Reader, 2048)})
	chars := make([]rune, p.Length)
	for range tries {
		if p.draw(r, chars) {
			return wire.Secret(chars)
		}
	}
	i := 0
	for _, rule := range p.Rules {
		for range rule.Min {
			chars[i] = pick(r, rule.Charset)
			i++
		}
	}
	for ; i < len(chars); i++ {
		chars[i] = pick(r, p.charset)
	}
	r.Shuffle(len(chars), func(i, j int) { chars[i], chars[j] = chars[j], chars[i] })
	return wire.Secret(chars)
}

// draw fills chars with any of the characters and reports whether the rules are met.
func (p *Policy) draw(r *mathrand.Rand, chars []rune) bool {
	var have [MaxRules]int
	for i := range chars {
		at := r.IntN(len(p.charset))
		chars[i] = p.charset[at]
		for in := p.members[at]; in != 0; in &= in - 1 {
			have[bits.TrailingZeros32(in)]++
		}
	}
	for i, rule := range p.Rules {
		if have[i] < rule.Min {
			return false
		}
	}
	return true
}

// pick draws one of the characters, each as likely as the others.
func pick(r *mathrand.Rand, charset []rune) rune { return charset[r.IntN(len(charset))] }

// source gives the operating system's randomness to math/rand, whose draws are
// even for any number of choices.
type source struct{ from io.Reader }

// Uint64 implements rand.Source.
func (s source) Uint64() uint64 {
	var b [8]byte
	if _, err := io.ReadFull(s.from, b[:]); err != nil {
		panic("password: the operating system gives no randomness: " + err.Error()) // crypto/rand never fails
	}
	return binary.LittleEndian.Uint64(b[:])
}
