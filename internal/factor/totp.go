package factor

import (
	"bytes"
	"context"
	"encoding/base64"
	"image/png"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/cofferhq/coffer/internal/storage"
)

// secret is a row: what an entity proves a method with. The settings are those of the
// day it was made.
type secret struct {
	Key       string        `json:"key"` // base32
	Period    time.Duration `json:"period"`
	Algorithm string        `json:"algorithm"`
	Digits    int           `json:"digits"`
	Skew      int           `json:"skew"`
	Used      int64         `json:"used"` // the newest period whose passcode was used
	Failed    int           `json:"failed,omitempty"`
	Blocked   time.Time     `json:"blocked,omitzero"` // no passcode counts until then
}

func secretKey(method, entity string) string { return secretRows + method + "/" + entity }

var algorithms = map[string]otp.Algorithm{"SHA1": otp.AlgorithmSHA1, "SHA256": otp.AlgorithmSHA256, "SHA512": otp.AlgorithmSHA512}

// Check puts a method into its normal form and refuses what cannot be.
func (m *Method) check() error {
	if m.Period == 0 {
		m.Period = 30 * time.Second
	}
	if m.Algorithm == "" {
		m.Algorithm = "SHA1"
	}
	if m.Digits == 0 {
		m.Digits = 6
	}
	if m.KeySize == 0 {
		m.KeySize = 20
	}
	if m.MaxAttempts == 0 {
		m.MaxAttempts = 5
	}
	_, known := algorithms[m.Algorithm]
	switch {
	case m.Issuer == "" || len(m.Issuer) > 128:
		return invalid("issuer must be set, and has at most 128 bytes")
	case m.Period < 10*time.Second || m.Period > 5*time.Minute:
		return invalid("period must be between 10 and 300 seconds")
	case !known:
		return invalid("algorithm must be SHA1, SHA256 or SHA512")
	case m.Digits != 6 && m.Digits != 8:
		return invalid("digits can only be 6 or 8")
	case m.Skew < 0 || m.Skew > 1:
		return invalid("skew must be 0 or 1")
	case m.KeySize < 16 || m.KeySize > 128:
		return invalid("key_size must be between 16 and 128 bytes")
	case m.QRSize < 0 || m.QRSize > 1024:
		return invalid("qr_size must be between 0 and 1024 pixels")
	case m.MaxAttempts < 1 || m.MaxAttempts > 100:
		return invalid("max_validation_attempts must be between 1 and 100")
	}
	return nil
}

// proves reports whether a passcode proves a method for an entity. Each passcode does
// so once; so many wrong ones that guessing could succeed are refused for a while.
func (s *Store) proves(ctx context.Context, m *Method, entity, passcode string) (ok bool, err error) {
	key := secretKey(m.ID, entity)
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		ok = false
		have, err := storage.Load[secret](t, key)
		if err != nil || have == nil {
			return err
		}
		now := s.now()
		if now.Before(have.Blocked) {
			return nil
		}
		step, found := have.step(passcode, now)
		if ok = found && step > have.Used; ok {
			have.Used, have.Failed, have.Blocked = step, 0, time.Time{}
		} else if have.Failed++; have.Failed >= m.MaxAttempts {
			// By then another passcode holds, and what was guessed is worth nothing.
			have.Failed, have.Blocked = 0, now.Add(have.Period*time.Duration(1+2*have.Skew)).UTC()
		}
		return storage.Save(t, key, have)
	})
	return ok, err
}

// step returns the period that a passcode is of.
func (c *secret) step(passcode string, now time.Time) (int64, bool) {
	if len(passcode) != c.Digits {
		return 0, false
	}
	current := now.Unix() / int64(c.Period/time.Second)
	for skew := -c.Skew; skew <= c.Skew; skew++ {
		step := current + int64(skew)
		ok, err := hotp.ValidateCustom(passcode, uint64(step), c.Key, hotp.ValidateOpts{Digits: otp.Digits(c.Digits), Algorithm: algorithms[c.Algorithm]})
		if err == nil && ok {
			return step, true
		}
	}
	return 0, false
}

// Made is a new secret, to be shown once.
type Made struct {
	URL     string // otpauth://
	Barcode string // a PNG in base64, "" without one
}

// Generate makes an entity's secret of a method; nil where it has one.
func (s *Store) Generate(ctx context.Context, method, entity string) (*Made, error) {
	m, err := s.Method(ctx, method)
	if err != nil {
		return nil, err
	}
	who, err := s.Identities.Who(ctx, entity)
	if err != nil {
		return nil, err
	}
	if who == nil || who.Entity.ID != entity {
		return nil, invalid("invalid entity ID")
	}
	key, err := totp.Generate(totp.GenerateOpts{
		Issuer: m.Issuer, AccountName: entity, Period: uint(m.Period / time.Second), Digits: otp.Digits(m.Digits),
		Algorithm: algorithms[m.Algorithm], SecretSize: uint(m.KeySize),
	})
	if err != nil {
		return nil, err
	}
	out := &Made{URL: key.URL()}
	if m.QRSize > 0 {
		image, err := key.Image(m.QRSize, m.QRSize)
		if err != nil {
			return nil, invalid("qr_size of %d pixels is too small for the code", m.QRSize)
		}
		var text bytes.Buffer
		if err := png.Encode(&text, image); err != nil {
			return nil, err
		}
		out.Barcode = base64.StdEncoding.EncodeToString(text.Bytes())
	}
	there := false
	_, err = s.storage.Update(ctx, func(t storage.Txn) error {
		have, err := storage.Load[secret](t, secretKey(m.ID, entity))
		if there = have != nil; err != nil || there {
			return err
		}
		return storage.Save(t, secretKey(m.ID, entity), secret{
			Key: key.Secret(), Period: m.Period, Algorithm: m.Algorithm, Digits: m.Digits, Skew: m.Skew,
		})
	})
	if err != nil || there {
		return nil, err
	}
	return out, nil
}

// Destroy removes an entity's secret of a method.
func (s *Store) Destroy(ctx context.Context, method, entity string) error {
	if _, err := s.Method(ctx, method); err != nil {
		return err
	}
	if !plainID(entity) {
		return invalid("invalid entity ID")
	}
	_, err := s.storage.Update(ctx, func(t storage.Txn) error { return t.Delete(secretKey(method, entity)) })
	return err
}
