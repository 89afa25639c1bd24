package token

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/storage"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Rows, below the store's part of the barrier.
const (
	// Prefix is where the tokens' rows are, for a cache of them.
	Prefix = "id/" // + id: a Token

	keyRow         = "key"      // the hash key and the keyset of batch tokens
	accessorPrefix = "accessor" // /namespace/accessor: id
	childPrefix    = "child"    // /parent's id/id: nothing
	duePrefix      = "due"      // /time/id: nothing
	endingPrefix   = "ending"   // /id: its namespace; a token that ended and whose rest is to be removed
	orphanPrefix   = "orphan"   // /id: nothing; a parent that is gone and whose children are to be made orphans
	rolePrefix     = "role"     // /namespace/name: a Role
	wrappedPrefix  = "wrapped"  // /id: a wrapped response
)

// Cache answers tokens' rows by their full keys: CachePrefix, Prefix and the
// token's id. Get returns an error that wraps storage.ErrNotFound when there is
// no such row. What this node wrote must show in it at once.
type Cache interface {
	Get(ctx context.Context, key string) (*Token, error)
}

// Options are what a store needs.
type Options struct {
	Storage storage.Engine // the store's own part of the barrier
	// Cache holds the rows below Prefix; nil reads them from Storage each time.
	Cache Cache
	// CachePrefix is what stands before Storage's keys in those of Cache.
	CachePrefix string
	// Defaults returns the server's default and greatest lifetime of a token.
	Defaults func() (defaultTTL, maxTTL time.Duration)
	// Ended is told the namespace and the id of every service token that ended,
	// after it did and before its last row is removed, so that what belongs to it
	// can be removed as well. It may be told an id again, and is until it returns
	// nil. nil: no one is told.
	Ended func(ctx context.Context, namespace, id string) error
	// Within reports whether a namespace, by its id, is another one or below it;
	// nil where there is the root only.
	Within func(namespace, other string) bool
	Log    *slog.Logger
}

// Store keeps tokens. What it makes belongs to its namespace, and what is asked by
// accessor or as somebody else's token is found in it and below. All methods may be
// called concurrently.
type Store struct {
	namespace string // its id, "" is the root
	within    func(namespace, other string) bool

	storage  storage.Engine
	cache    Cache
	prefix   string // of a token's key in cache
	defaults func() (time.Duration, time.Duration)
	ended    func(context.Context, string, string) error
	log      *slog.Logger
	hash     *hasher
	batch    tink.AEAD
	wake     chan struct{} // tells Run that there is something to remove
}

// NewStore opens the store and, the first time, makes its keys.
func NewStore(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		storage: o.Storage, cache: o.Cache, prefix: o.CachePrefix + Prefix, defaults: o.Defaults, ended: o.Ended, log: o.Log,
		wake: make(chan struct{}, 1), within: o.Within,
	}
	if s.within == nil {
		s.within = func(namespace, other string) bool { return namespace == other }
	}
	if s.cache == nil {
		s.cache, s.prefix = uncached{o.Storage}, Prefix
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var row []byte
	_, err := s.storage.Update(ctx, func(t storage.Txn) error {
		var err error
		if row, err = t.Get(keyRow); !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if row, err = newKeys(); err != nil {
			return err
		}
		return t.Put(keyRow, row)
	})
	if err != nil {
		return nil, fmt.Errorf("open the token store: %w", err)
	}
	if s.hash, s.batch, err = openKeys(row); err != nil {
		return nil, fmt.Errorf("open the token store's keys: %w", err)
	}
	return s, nil
}

// In returns the store as a namespace sees it. The sweep, Run, is the root's.
func (s *Store) In(namespace string) *Store {
	own := *s
	own.namespace = namespace
	return &own
}

// sees reports whether a token belongs to the store's namespace, or to one below it.
func (s *Store) sees(tok *Token) bool {
	return tok.Namespace == s.namespace || s.within(tok.Namespace, s.namespace)
}

// keys is the row of the store's keys. The barrier encrypts it.
type keys struct {
	Hash  []byte          `json:"hash"`
	Batch json.RawMessage `json:"batch"` // a Tink keyset
}

func newKeys() ([]byte, error) {
	k := keys{Hash: make([]byte, 32)}
	_, _ = rand.Read(k.Hash)
	// AES-GCM-SIV: short, and safe for any number of tokens under one key.
	handle, err := keyset.NewHandle(aead.AES256GCMSIVKeyTemplate())
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		return nil, err
	}
	k.Batch = text.Bytes()
	return json.Marshal(k)
}

func openKeys(row []byte) (*hasher, tink.AEAD, error) {
	var k keys
	if err := json.Unmarshal(row, &k); err != nil {
		return nil, nil, err
	}
	if len(k.Hash) != 32 {
		return nil, nil, fmt.Errorf("the hash key has %d bytes instead of 32", len(k.Hash))
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(k.Batch)))
	if err != nil {
		return nil, nil, err
	}
	primitive, err := aead.New(handle)
	return newHasher(k.Hash), primitive, err
}

// uncached is a Cache that keeps nothing.
type uncached struct{ engine storage.Engine }

func (u uncached) Get(ctx context.Context, key string) (*Token, error) {
	var t *Token
	err := u.engine.View(ctx, func(r storage.Reader) error {
		row, err := r.Get(key)
		if err == nil {
			t, err = Decode(key, row)
		}
		return err
	})
	return t, err
}

// cached returns a token by its storage id.
func (s *Store) cached(ctx context.Context, id string) (*Token, error) {
	return s.cache.Get(ctx, s.prefix+id)
}

func idKey(id string) string            { return Prefix + id }
func childKey(parent, id string) string { return childPrefix + "/" + parent + "/" + id }
func endingKey(id string) string        { return endingPrefix + "/" + id }
func orphanKey(id string) string        { return orphanPrefix + "/" + id }
func wrappedKey(id string) string       { return wrappedPrefix + "/" + id }

// rootName is how the root namespace is called where it stands in a key.
const rootName = "root"

// accessorKey is where an accessor is found. That of a token outside of the root
// namespace ends with a dot and the namespace's id.
func accessorKey(a string) string {
	_, namespace, _ := strings.Cut(a, ".")
	return accessorsOf(namespace) + a
}

func accessorsOf(namespace string) string {
	return accessorPrefix + "/" + cmp.Or(namespace, rootName) + "/"
}

func (s *Store) roleKey(name string) string {
	return rolePrefix + "/" + cmp.Or(s.namespace, rootName) + "/" + name
}

// dueTime is a time as a key that sorts by it.
func dueTime(t time.Time) string {
	const digits = 20
	text := strconv.FormatInt(t.UnixNano(), 10)
	return "00000000000000000000"[:digits-len(text)] + text
}

func dueKey(at time.Time, id string) string { return duePrefix + "/" + dueTime(at) + "/" + id }

// read returns the token of a row, or an error that wraps storage.ErrNotFound.
func read(r storage.Reader, id string) (*Token, error) {
	row, err := r.Get(idKey(id))
	if err != nil {
		return nil, err
	}
	return Decode(id, row)
}

// put writes a token's row and its place among those that end: before is the
// row that it replaces, nil for a new one.
func put(t storage.Txn, tok, before *Token) error {
	row, err := encode(tok)
	if err != nil {
		return err
	}
	if before != nil && !before.ExpiresAt.IsZero() && !before.ExpiresAt.Equal(tok.ExpiresAt) {
		if err := t.Delete(dueKey(before.ExpiresAt, tok.ID)); err != nil {
			return err
		}
	}
	if !tok.ExpiresAt.IsZero() {
		if err := t.Put(dueKey(tok.ExpiresAt, tok.ID), nil); err != nil {
			return err
		}
	}
	return t.Put(idKey(tok.ID), row)
}

// holds reports whether a token and every ancestor of it hold: nil or errBad.
// get returns a row by id.
func holds(tok *Token, now time.Time, get func(id string) (*Token, error)) error {
	if !tok.valid(now) {
		return errBad()
	}
	for id, n := tok.Parent, 0; id != ""; n++ {
		ancestor, err := get(id)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return errBad()
		case err != nil:
			return err
		case ancestor.State == gone:
			if n == 0 && tok.Type == Batch {
				return errBad() // it has no row that could say it is an orphan now
			}
			return nil // its children live on as orphans
		case n > MaxDepth || !ancestor.valid(now):
			return errBad()
		}
		id = ancestor.Parent
	}
	return nil
}

// Lifetimes are the server's default and greatest lifetime.
func (s *Store) Lifetimes() (defaultTTL, maxTTL time.Duration) { return s.defaults() }
