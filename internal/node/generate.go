package node

import (
	"context"
	"encoding/base64"

	"github.com/cofferhq/coffer/internal/fault"
)

// GenerateStatus is how the making of a root token stands.
type GenerateStatus struct {
	Started   bool
	Nonce     string
	Progress  int
	Required  int
	Complete  bool
	Encoded   string // the token, each byte combined with the pad's by exclusive or, in base64
	PadLength int
}

// generation is the making of a root token by a quorum.
type generation struct {
	quorum quorum
	pad    []byte
}

// GenerateInit starts to make a root token that only the holder of the one-time
// pad can read. (Vault: sys/generate-root/attempt.)
func (n *Node) GenerateInit(ctx context.Context, pad string) (GenerateStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.sealed:
		return GenerateStatus{}, errSealed()
	case n.generate.quorum.nonce != "":
		return GenerateStatus{}, fault.New(fault.Invalid, "root generation already in progress; cancel it first")
	case len(pad) != n.TokenLength:
		return GenerateStatus{}, fault.New(fault.Invalid, "the one-time pad (otp) must have %d characters", n.TokenLength)
	}
	if _, err := n.authority(ctx); err != nil {
		return GenerateStatus{}, err
	}
	n.generate.pad = []byte(pad)
	n.generate.quorum.begin()
	return n.generateStatus(ctx)
}

// GenerateStatus says how it stands.
func (n *Node) GenerateStatus(ctx context.Context) (GenerateStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sealed {
		return GenerateStatus{}, errSealed()
	}
	return n.generateStatus(ctx)
}

func (n *Node) generateStatus(ctx context.Context) (GenerateStatus, error) {
	rec, err := n.record(ctx)
	if err != nil {
		return GenerateStatus{}, err
	}
	q := &n.generate.quorum
	s := GenerateStatus{Started: q.nonce != "", Nonce: q.nonce, Progress: len(q.shares), PadLength: n.TokenLength}
	if people := held(rec); people != nil {
		s.Required = people.Threshold
	}
	return s, nil
}

// GenerateUpdate takes one share, and makes the token once enough were given.
// (Vault: sys/generate-root/update.)
func (n *Node) GenerateUpdate(ctx context.Context, nonce string, share []byte) (GenerateStatus, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	done, err := n.gather(ctx, &n.generate.quorum, nonce, share)
	if err != nil {
		return GenerateStatus{}, err
	}
	if !done {
		return n.generateStatus(ctx)
	}
	defer func() { n.generate = generation{} }()
	if err := n.Record(ctx, "root-generated"); err != nil {
		return GenerateStatus{}, err
	}
	token, err := n.NewRootToken(ctx)
	if err != nil {
		return GenerateStatus{}, err
	}
	mixed := []byte(token)
	for i := range mixed {
		mixed[i] ^= n.generate.pad[i%len(n.generate.pad)]
	}
	s, err := n.generateStatus(ctx)
	s.Complete, s.Nonce, s.Progress, s.Encoded = true, nonce, s.Required, base64.RawStdEncoding.EncodeToString(mixed)
	return s, err
}

// GenerateCancel ends it.
func (n *Node) GenerateCancel() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generate.quorum.reset()
	n.generate = generation{}
}
