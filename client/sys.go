package client

import (
	"context"
	"net/http"
	"net/url"
)

// Sys is the server itself: its seal, mounts and policies.
type Sys struct{ client *Client }

// Sys returns the server's own routes.
func (c *Client) Sys() Sys { return Sys{c} }

// Health is how the server is.
type Health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Time        int64  `json:"server_time_utc"` // seconds since 1970
	Version     string `json:"version"`         // of the API, as Vault counts
	Coffer      string `json:"coffer_version"`
	ClusterName string `json:"cluster_name"`
	ClusterID   string `json:"cluster_id"`
}

// Health returns how the server is. A server that is sealed or not initialized
// is no error here.
func (s Sys) Health(ctx context.Context) (*Health, error) {
	out := new(Health)
	r := Request{Path: "sys/health", Anonymous: true, Query: url.Values{
		"sealedcode": {"299"}, "uninitcode": {"299"}, "standbycode": {"299"}, "drsecondarycode": {"299"}, "performancestandbycode": {"299"},
	}}
	return out, s.read(ctx, r, out)
}

// SealStatus is how the seal stands.
type SealStatus struct {
	Type         string `json:"type"`
	Initialized  bool   `json:"initialized"`
	Sealed       bool   `json:"sealed"`
	Threshold    int    `json:"t"` // shares needed
	Shares       int    `json:"n"` // shares given out
	Progress     int    `json:"progress"`
	Nonce        string `json:"nonce"`
	Version      string `json:"version"`
	Migration    bool   `json:"migration"`
	ClusterName  string `json:"cluster_name"`
	ClusterID    string `json:"cluster_id"`
	RecoverySeal bool   `json:"recovery_seal"`
	StorageType  string `json:"storage_type"`
}

// SealStatus returns how the seal stands.
func (s Sys) SealStatus(ctx context.Context) (*SealStatus, error) {
	out := new(SealStatus)
	return out, s.read(ctx, Request{Path: "sys/seal-status", Anonymous: true}, out)
}

// InitRequest says how many key shares to make. Shares are of a seal that
// people open, recovery shares of one that opens by itself.
type InitRequest struct {
	Shares            int `json:"secret_shares,omitzero"`
	Threshold         int `json:"secret_threshold,omitzero"`
	RecoveryShares    int `json:"recovery_shares,omitzero"`
	RecoveryThreshold int `json:"recovery_threshold,omitzero"`
}

// InitAnswer is shown once and kept nowhere.
type InitAnswer struct {
	Keys           []Secret `json:"keys"` // in hex
	KeysBase64     []Secret `json:"keys_base64"`
	Recovery       []Secret `json:"recovery_keys"`
	RecoveryBase64 []Secret `json:"recovery_keys_base64"`
	RootToken      Secret   `json:"root_token"`
}

// Initialized reports whether the server is initialized.
func (s Sys) Initialized(ctx context.Context) (bool, error) {
	var out struct {
		Initialized bool `json:"initialized"`
	}
	err := s.read(ctx, Request{Path: "sys/init", Anonymous: true}, &out)
	return out.Initialized, err
}

// Init initializes the server.
func (s Sys) Init(ctx context.Context, r InitRequest) (*InitAnswer, error) {
	out := new(InitAnswer)
	return out, s.read(ctx, Request{Method: http.MethodPost, Path: "sys/init", Body: r, Anonymous: true}, out)
}

type unseal struct {
	Key   Secret `json:"key,omitzero"`
	Reset bool   `json:"reset,omitzero"`
}

// Unseal gives one key share, in hex or base64, and returns how the seal stands
// then.
func (s Sys) Unseal(ctx context.Context, share Secret) (*SealStatus, error) {
	return s.unseal(ctx, unseal{Key: share})
}

// ResetUnseal makes the server forget the shares given so far.
func (s Sys) ResetUnseal(ctx context.Context) (*SealStatus, error) {
	return s.unseal(ctx, unseal{Reset: true})
}

func (s Sys) unseal(ctx context.Context, body unseal) (*SealStatus, error) {
	out := new(SealStatus)
	return out, s.read(ctx, Request{Method: http.MethodPost, Path: "sys/unseal", Body: body, Anonymous: true}, out)
}

// Seal makes the server drop its keys.
func (s Sys) Seal(ctx context.Context) error { return s.do(ctx, post("sys/seal", nil)) }

// KeyStatus is the number and age of the encryption key.
type KeyStatus struct {
	Term        uint32 `json:"term"`
	Installed   Time   `json:"install_time"`
	Encryptions uint64 `json:"encryptions"`
}

// KeyStatus returns the number and age of the encryption key.
func (s Sys) KeyStatus(ctx context.Context) (*KeyStatus, error) {
	out := new(KeyStatus)
	return out, s.read(ctx, get("sys/key-status"), out)
}

// Rotate makes new encryption keys for what is written from now on.
func (s Sys) Rotate(ctx context.Context) error { return s.do(ctx, post("sys/rotate", nil)) }

// Policies lists the names of the policies.
func (s Sys) Policies(ctx context.Context) ([]string, error) {
	return s.client.names(ctx, get("sys/policies/acl"))
}

// Policy returns a policy's text.
func (s Sys) Policy(ctx context.Context, name string) (string, error) {
	var out struct {
		Policy string `json:"policy"`
	}
	err := s.read(ctx, get("sys/policies/acl/"+name), &out)
	return out.Policy, err
}

// WritePolicy stores a policy, in HCL or JSON, and returns what the server
// found suspicious in it.
func (s Sys) WritePolicy(ctx context.Context, name, text string) (warnings []string, err error) {
	out, err := s.client.ask(ctx, post("sys/policies/acl/"+name, struct {
		Policy string `json:"policy"`
	}{text}), nil)
	if err != nil {
		return nil, err
	}
	return out.Warnings, nil
}

// DeletePolicy deletes a policy.
func (s Sys) DeletePolicy(ctx context.Context, name string) error {
	return s.do(ctx, remove("sys/policies/acl/"+name))
}

// Capabilities returns what the calling token may do on paths, by path.
func (s Sys) Capabilities(ctx context.Context, paths ...string) (map[string][]string, error) {
	var all map[string]Raw
	r := Request{Method: http.MethodPost, Path: "sys/capabilities-self", Reads: true, Body: struct {
		Paths []string `json:"paths"`
	}{paths}}
	if err := s.read(ctx, r, &all); err != nil {
		return nil, err
	}
	out := make(map[string][]string, len(paths))
	for _, path := range paths {
		var list []string
		if err := all[path].Decode(&list); err != nil {
			return nil, err
		}
		out[path] = list
	}
	return out, nil
}

// Why is why a request was denied.
type Why struct {
	RequestID string   `json:"request_id"`
	Time      Time     `json:"time"`
	Principal string   `json:"principal"` // who called
	Accessor  string   `json:"accessor"`  // of the token that called
	Policies  []string `json:"policies"`  // of that token
	Path      string   `json:"path"`
	Need      string   `json:"need"` // the capability that was missing
	Policy    string   `json:"policy"`
	Rule      string   `json:"rule"`    // the one that decided, if one did
	Missing   string   `json:"missing"` // what was not allowed, in words
	Fix       string   `json:"fix"`     // what would have allowed it
}

// Why returns why a request was denied, by the RequestID of its Error.
func (s Sys) Why(ctx context.Context, requestID string) (*Why, error) {
	out := new(Why)
	r := Request{Method: http.MethodPost, Path: "sys/policies/why", Reads: true, Body: struct {
		RequestID string `json:"request_id"`
	}{requestID}}
	return out, s.read(ctx, r, out)
}

// read sends a request and decodes its answer.
func (s Sys) read(ctx context.Context, r Request, into any) error {
	_, err := s.client.ask(ctx, r, into)
	return err
}

// do sends a request whose answer says nothing.
func (s Sys) do(ctx context.Context, r Request) error {
	_, err := s.client.ask(ctx, r, nil)
	return err
}
