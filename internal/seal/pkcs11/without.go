//go:build !pkcs11

package pkcs11

import (
	"errors"

	"github.com/cofferhq/coffer/internal/seal"
)

func newSeal(*config) (seal.Seal, error) {
	return nil, errors.New(`this program was built without PKCS#11; build it with cgo and the tag: CGO_ENABLED=1 go build -tags pkcs11 ./cmd/coffer`)
}
