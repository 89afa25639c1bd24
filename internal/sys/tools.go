package sys

import (
	"context"
	"crypto"
	"crypto/rand"
	_ "crypto/sha256" // the hashes of the table below
	"crypto/sha3"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var toolRoutes = []route.Route[*System]{
	route.New("POST", "tools/random", "Make random bytes.", (*System).random, route.Reads(),
		route.Shows("tools/random", `{"bytes":16,"format":"hex"}`, "")),
	route.New("POST", "tools/random/{source}", "Make as many random bytes as the path says, or take them from a source: platform, seal or all.", (*System).random, route.Reads(),
		route.Shows("tools/random/32", "{}", "")),
	route.New("POST", "tools/random/{source}/{urlbytes}", "Make random bytes of a source: platform, seal or all.", (*System).random, route.Reads(),
		route.Shows("tools/random/platform/32", "{}", "")),
	route.New("POST", "tools/hash", "Hash what is sent.", (*System).hash, route.Reads(),
		route.Shows("tools/hash", `{"input":"YWRtaW4=","algorithm":"sha2-256"}`, `{"sum":"8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"}`)),
	route.New("POST", "tools/hash/{urlalgorithm}", "Hash what is sent.", (*System).hash, route.Reads(),
		route.Shows("tools/hash/sha2-256", `{"input":"YWRtaW4="}`, `{"sum":"8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"}`)),
}

// MaxRandom is how many random bytes are made at once.
const MaxRandom = 128 << 10

// Random asks for random bytes.
type Random struct {
	Source string    `path:"source" doc:"A source (platform, seal or all), or a number of bytes."`
	Count  string    `path:"urlbytes" doc:"How many bytes."`
	Bytes  *wire.Int `json:"bytes" doc:"How many bytes, where the path does not say it; 32 unless given, at most 131072."`
	Format string    `json:"format" doc:"base64, unless given, or hex."`
}

// amount reads what Vault lets its callers write in several places. A policy can
// name what stands in the path.
func (in *Random) amount() (source string, n int, err error) {
	source, n = "platform", 32
	if in.Bytes != nil {
		n = int(*in.Bytes)
	}
	text := in.Count
	switch in.Source {
	case "":
	case "platform", "seal", "all":
		source = in.Source
	default:
		if text != "" {
			return "", 0, fault.New(fault.Invalid, "unsupported entropy source %q; must be \"platform\", \"seal\" or \"all\"", in.Source)
		}
		text = in.Source
	}
	if text != "" {
		if n, err = strconv.Atoi(text); err != nil {
			return "", 0, fault.New(fault.Invalid, "error parsing url-set byte count: %q is not a whole number", text)
		}
	}
	if n < 1 {
		return "", 0, fault.New(fault.Invalid, "'bytes' cannot be less than 1")
	}
	if n > MaxRandom {
		return "", 0, fault.New(fault.Invalid, "'bytes' cannot be more than %d", MaxRandom)
	}
	return source, n, nil
}

// RandomBytes are random bytes, encoded.
type RandomBytes struct {
	route.Notes
	Bytes wire.Secret `json:"random_bytes"`
}

// MarshalJSON shows the bytes, which are made for the caller alone.
func (r RandomBytes) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"random_bytes": r.Bytes.Reveal()})
}

func (s *System) random(_ context.Context, _ route.Caller, in Random) (RandomBytes, error) {
	source, n, err := in.amount()
	if err != nil {
		return RandomBytes{}, err
	}
	encode, err := encoder(in.Format, "base64")
	if err != nil {
		return RandomBytes{}, err
	}
	made := make([]byte, n)
	_, _ = rand.Read(made) // it never fails
	out := RandomBytes{Bytes: wire.Secret(encode(made))}
	if source != "platform" {
		out.Warn("no seal gives randomness here: the bytes are the platform's")
	}
	return out, nil
}

// encoder returns the encoding of a name.
func encoder(name, otherwise string) (func([]byte) string, error) {
	if name == "" {
		name = otherwise
	}
	switch name {
	case "base64":
		return base64.StdEncoding.EncodeToString, nil
	case "hex":
		return hex.EncodeToString, nil
	}
	return nil, fault.New(fault.Invalid, "unsupported encoding format %q; must be \"hex\" or \"base64\"", name)
}

// hashes are the algorithms by Vault's names.
var hashes = map[string]func() hash.Hash{
	"sha2-224": crypto.SHA224.New, "sha2-256": crypto.SHA256.New, "sha2-384": crypto.SHA384.New, "sha2-512": crypto.SHA512.New,
	"sha3-224": func() hash.Hash { return sha3.New224() }, "sha3-256": func() hash.Hash { return sha3.New256() },
	"sha3-384": func() hash.Hash { return sha3.New384() }, "sha3-512": func() hash.Hash { return sha3.New512() },
}

// HashInput is what is hashed.
type HashInput struct {
	Path      string      `path:"urlalgorithm" doc:"The algorithm; it counts before the body's."`
	Algorithm string      `json:"algorithm" doc:"sha2-224, sha2-256 (unless given), sha2-384, sha2-512, or sha3-224, sha3-256, sha3-384, sha3-512."`
	Input     wire.Secret `json:"input" doc:"What to hash, in base64."`
	Format    string      `json:"format" doc:"hex, unless given, or base64."`
}

// HashSum is a hash, encoded.
type HashSum struct {
	Sum string `json:"sum"`
}

func (s *System) hash(_ context.Context, _ route.Caller, in HashInput) (HashSum, error) {
	name := in.Path
	if name == "" {
		name = in.Algorithm
	}
	if name == "" {
		name = "sha2-256"
	}
	algorithm := hashes[name]
	if algorithm == nil {
		return HashSum{}, fault.New(fault.Invalid, "unsupported algorithm %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(hashes)), ", "))
	}
	encode, err := encoder(in.Format, "hex")
	if err != nil {
		return HashSum{}, err
	}
	input, err := base64.StdEncoding.DecodeString(in.Input.Reveal())
	if err != nil {
		return HashSum{}, fault.New(fault.Invalid, "unable to decode input as base64")
	}
	h := algorithm()
	_, _ = h.Write(input) // it never fails
	return HashSum{encode(h.Sum(nil))}, nil
}
