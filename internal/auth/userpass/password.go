package userpass

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// cost is what hashing one password takes.
type cost struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
}

// standard is 19 MiB and two passes, the OWASP Password Storage Cheat Sheet's
// figures for argon2id. With gateSlots at once, logins take at most that many
// times 19 MiB.
var standard = cost{memory: 19 << 10, passes: 2, lanes: 1}

const (
	saltBytes = 16
	sumBytes  = 32
	// maxBcryptCost bounds what an imported hash may make a login cost: 2^12
	// rounds are about a quarter of a second.
	maxBcryptCost = 12
)

var base = base64.RawStdEncoding

// hash returns the password's argon2id hash in the PHC string format, which
// holds its parameters and salt.
func (c cost) hash(password string) string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt)
	sum := argon2.IDKey([]byte(password), salt, c.passes, c.memory, c.lanes, sumBytes)
	return c.encode(salt, sum)
}

func (c cost) encode(salt, sum []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.passes, c.lanes,
		base.EncodeToString(salt), base.EncodeToString(sum))
}

// nobody is a hash that no password has: its sum was not made from one.
func (c cost) nobody() string {
	salt, sum := make([]byte, saltBytes), make([]byte, sumBytes)
	_, _ = rand.Read(salt)
	_, _ = rand.Read(sum)
	return c.encode(salt, sum)
}

// matches reports whether the password has the hash. A hash that cannot be read
// matches nothing, after the work of one that can.
func (c cost) matches(hash, password string) bool {
	if strings.HasPrefix(hash, "$2") {
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	}
	its, salt, sum, err := parse(hash)
	if err != nil {
		its, salt, sum = c, make([]byte, saltBytes), nil
	}
	got := argon2.IDKey([]byte(password), salt, its.passes, its.memory, its.lanes, sumBytes)
	return subtle.ConstantTimeCompare(got, sum) == 1
}

// current reports whether the hash was made as it would be now.
func (c cost) current(hash string) bool {
	its, _, _, err := parse(hash)
	return err == nil && its == c
}

func parse(hash string) (c cost, salt, sum []byte, err error) {
	var version int
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return c, nil, nil, fmt.Errorf("not an argon2id hash")
	}
	if _, err = fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return c, nil, nil, fmt.Errorf("argon2 version is not %d", argon2.Version)
	}
	if _, err = fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.memory, &c.passes, &c.lanes); err != nil {
		return c, nil, nil, fmt.Errorf("argon2 parameters: %w", err)
	}
	if c.passes == 0 || c.lanes == 0 {
		return c, nil, nil, fmt.Errorf("argon2 parameters are zero")
	}
	if salt, err = base.DecodeString(parts[4]); err != nil {
		return c, nil, nil, err
	}
	sum, err = base.DecodeString(parts[5])
	return c, salt, sum, err
}

// checkHash refuses a hash that a user may not be given.
func checkHash(hash string) error {
	its, err := bcrypt.Cost([]byte(hash))
	if err != nil {
		return fault.New(fault.Invalid, "%q is not a valid bcrypt hash", "password_hash")
	}
	if its > maxBcryptCost {
		return fault.New(fault.Invalid, "%q has a bcrypt cost of %d, beyond the limit of %d", "password_hash", its, maxBcryptCost)
	}
	return nil
}
