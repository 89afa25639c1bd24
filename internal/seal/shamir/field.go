package shamir

// Arithmetic in GF(2^8) modulo x^8+x^4+x^3+x+1, the field of AES (FIPS 197,
// section 4), without branches or table look-ups that depend on the operands.

// mul returns the product of a and b.
func mul(a, b byte) byte {
	var p byte
	for range 8 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return p
}

// inv returns the inverse of a as a^254; that of 0 is 0.
func inv(a byte) byte {
	r := byte(1)
	for range 7 {
		a = mul(a, a)
		r = mul(r, a)
	}
	return r
}

// eval returns the value at x of the polynomial with the given coefficients,
// lowest first.
func eval(coefficients []byte, x byte) byte {
	var y byte
	for i := len(coefficients) - 1; i >= 0; i-- {
		y = mul(y, x) ^ coefficients[i]
	}
	return y
}
