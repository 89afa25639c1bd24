// Package builtin is the one list of what Coffer can be built of: storage
// engines, seals, secrets engines and auth methods. Adding a kind is one package
// and one line here.
package builtin

import (
	"slices"

	"github.com/cofferhq/coffer/internal/auth/approle"
	"github.com/cofferhq/coffer/internal/auth/aws"
	"github.com/cofferhq/coffer/internal/auth/cert"
	"github.com/cofferhq/coffer/internal/auth/jwt"
	"github.com/cofferhq/coffer/internal/auth/kubernetes"
	"github.com/cofferhq/coffer/internal/auth/ldap"
	"github.com/cofferhq/coffer/internal/auth/spiffe"
	"github.com/cofferhq/coffer/internal/auth/userpass"
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/engine/database"
	"github.com/cofferhq/coffer/internal/engine/kv"
	"github.com/cofferhq/coffer/internal/engine/pki"
	"github.com/cofferhq/coffer/internal/seal"
	"github.com/cofferhq/coffer/internal/seal/keyfile"
	"github.com/cofferhq/coffer/internal/seal/pkcs11"
	"github.com/cofferhq/coffer/internal/seal/shamir"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/etcd"
	"github.com/cofferhq/coffer/internal/storage/pebble"
	"github.com/cofferhq/coffer/internal/storage/postgres"
)

// Storage lists the storage engines; the first is the default.
var Storage = []storage.Kind{pebble.Kind, etcd.Kind, postgres.Kind}

// StorageKind returns the kind of a name, nil when there is none.
func StorageKind(name string) *storage.Kind {
	for i, k := range Storage {
		if k.Name == name || slices.Contains(k.Also, name) {
			return &Storage[i]
		}
	}
	return nil
}

// Seals lists the seals; the first is the default.
var Seals = []seal.Kind{keyfile.Kind, shamir.Kind, pkcs11.Kind}

// Engines lists the secrets engines and auth methods that can be mounted. Of
// several versions of one kind the first is mounted where none is asked for.
var Engines = []*engine.Spec{
	kv.V1.Spec(), kv.V2.Spec(),
	approle.Kind.Spec(),
	aws.Kind.Spec(),
	cert.Kind.Spec(),
	database.Kind.Spec(),
	jwt.Kind.Spec(), jwt.OIDC.Spec(),
	kubernetes.Kind.Spec(),
	ldap.Kind().Spec(),
	pki.Kind.Spec(),
	spiffe.Kind.Spec(),
	userpass.Kind().Spec(),
}

// Engine returns the kind of a name and version, nil when there is none. An
// empty version is the kind's first.
func Engine(name, version string) *engine.Spec {
	for _, s := range Engines {
		if s.Name == name && (s.Version == version || version == "") {
			return s
		}
	}
	return nil
}
