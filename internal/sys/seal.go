package sys

import (
	"context"
	"encoding/base64"
	"encoding/hex"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/node"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// People with key shares have no tokens: their shares are what authorizes, so
// that these routes are public.
var sealRoutes = []route.Route[*System]{
	route.New("GET", "init", "Say whether the server is initialized.", (*System).initialized, route.Public(), route.WhileSealed(),
		route.Shows("init", "", `{"initialized":true}`)),
	route.New("POST", "init", "Initialize the server; the answer is shown once.", (*System).init, route.Public(), route.WhileSealed(),
		route.Shows("init", `{"secret_shares":5,"secret_threshold":3}`, "")),
	route.New("POST", "unseal", "Give one key share.", (*System).unseal, route.Public(), route.WhileSealed(),
		route.Shows("unseal", `{"key":"9c0b7e…"}`, "")),
	route.New("POST", "seal", "Seal the server: drop its keys and answer nothing.", (*System).seal, route.Sudo(),
		route.Shows("seal", "", "")),
	route.New("POST", "seal/shares", "Give out the first key shares of a server that has none.", (*System).giveShares, route.Sudo(),
		route.Shows("seal/shares", `{"secret_shares":5,"secret_threshold":3}`, "")),
	route.New("POST", "step-down", "Accepted for Vault's clients: every node serves.", (*System).stepDown, route.Sudo()),
	route.New("GET", "rekey/init", "Read how a change of key shares stands.", (*System).rekeyStatus, route.Public()),
	route.New("POST", "rekey/init", "Start to replace the key shares.", (*System).rekeyInit, route.Public(),
		route.Shows("rekey/init", `{"secret_shares":5,"secret_threshold":3,"require_verification":true}`, "")),
	route.New("DELETE", "rekey/init", "Cancel a change of key shares.", (*System).rekeyCancel, route.Public()),
	route.New("POST", "rekey/update", "Give one present key share.", (*System).rekeyUpdate, route.Public(),
		route.Shows("rekey/update", `{"key":"9c0b7e…","nonce":"2dbd10f1-8528-6246-09e7-82b25b8aba63"}`, "")),
	route.New("GET", "rekey/verify", "Read how the verification of new key shares stands.", (*System).rekeyVerifyStatus, route.Public()),
	route.New("POST", "rekey/verify", "Give one new key share, to verify it.", (*System).rekeyVerify, route.Public(),
		route.Shows("rekey/verify", `{"key":"41d27a…","nonce":"8b112c9e-2738-929d-bcc2-19aff249ff10"}`, "")),
	route.New("DELETE", "rekey/verify", "Start the verification of new key shares again; the change goes on.", (*System).rekeyVerifyRestart, route.Public()),
	route.New("GET", "generate-root/attempt", "Read how the making of a root token stands.", (*System).generateStatus, route.Public()),
	route.New("POST", "generate-root/attempt", "Start to make a root token by key shares.", (*System).generateInit, route.Public(),
		route.Shows("generate-root/attempt", `{}`, "")),
	route.New("DELETE", "generate-root/attempt", "Cancel the making of a root token.", (*System).generateCancel, route.Public()),
	route.New("POST", "generate-root/update", "Give one key share.", (*System).generateUpdate, route.Public(),
		route.Shows("generate-root/update", `{"key":"9c0b7e…","nonce":"2dbd10f1-8528-6246-09e7-82b25b8aba63"}`, "")),
	route.New("GET", "generate-root-token/attempt", "Another spelling of generate-root/attempt.", (*System).generateStatus, route.Public()),
	route.New("POST", "generate-root-token/attempt", "Another spelling of generate-root/attempt.", (*System).generateInit, route.Public(),
		route.Shows("generate-root-token/attempt", `{}`, "")),
	route.New("DELETE", "generate-root-token/attempt", "Another spelling of generate-root/attempt.", (*System).generateCancel, route.Public()),
	route.New("POST", "generate-root-token/update", "Another spelling of generate-root/update.", (*System).generateUpdate, route.Public(),
		route.Shows("generate-root-token/update", `{"key":"9c0b7e…","nonce":"2dbd10f1-8528-6246-09e7-82b25b8aba63"}`, "")),
	route.New("POST", "rotate", "Make new encryption keys for what is written from now on.", (*System).rotate, route.Sudo(),
		route.Shows("rotate", "", "")),
	route.New("POST", "rotate/keyring", "Make new encryption keys for what is written from now on.", (*System).rotate, route.Sudo()),
	route.New("POST", "rotate/root", "Replace the root key under every seal.", (*System).rotateRoot, route.Sudo()),
	route.New("POST", "rotate/rewrap", "Encrypt everything anew under the newest keys and drop the old ones.", (*System).rewrap, route.Sudo()),
	route.New("GET", "key-status", "Read the number and age of the encryption key.", (*System).keyStatus,
		route.Shows("key-status", "", `{"term":3,"install_time":"2030-01-02T15:04:05Z","encryptions":4096}`)),
}

// Initialized says whether the server is initialized.
type Initialized struct {
	route.Bare
	Initialized bool `json:"initialized"`
}

func (s *System) initialized(ctx context.Context, _ route.Caller, _ route.Nothing) (Initialized, error) {
	status, err := s.Node.Status(ctx)
	return Initialized{Initialized: status.Initialized}, err
}

// Init says how many shares are given out.
type Init struct {
	Shares            wire.Int     `json:"secret_shares" doc:"Key shares to give out, with a Shamir seal."`
	Threshold         wire.Int     `json:"secret_threshold" doc:"Shares needed to unseal."`
	RecoveryShares    wire.Int     `json:"recovery_shares" doc:"Recovery shares to give out, with a seal that opens by itself; may be 0."`
	RecoveryThreshold wire.Int     `json:"recovery_threshold" doc:"Recovery shares needed to authorize."`
	Stored            wire.Int     `json:"stored_shares" doc:"Accepted for Vault's clients."`
	PGP               wire.Strings `json:"pgp_keys" doc:"Not supported: shares are not encrypted to PGP keys."`
	RootPGP           string       `json:"root_token_pgp_key" doc:"Not supported."`
	RecoveryPGP       wire.Strings `json:"recovery_pgp_keys" doc:"Not supported."`
}

// InitAnswer is shown once.
type InitAnswer struct {
	route.Bare
	Keys           []string    `json:"keys"`
	KeysBase64     []string    `json:"keys_base64"`
	Recovery       []string    `json:"recovery_keys,omitempty"`
	RecoveryBase64 []string    `json:"recovery_keys_base64,omitempty"`
	RootToken      wire.Secret `json:"root_token"`
}

func (s *System) init(ctx context.Context, _ route.Caller, in Init) (InitAnswer, error) {
	if len(in.PGP)+len(in.RecoveryPGP)+len(in.RootPGP) > 0 {
		return InitAnswer{}, errPGP()
	}
	r, err := s.Node.Init(ctx, node.InitRequest{
		Shares: int(in.Shares), Threshold: int(in.Threshold),
		RecoveryShares: int(in.RecoveryShares), RecoveryThreshold: int(in.RecoveryThreshold),
	})
	if err != nil {
		return InitAnswer{}, err
	}
	out := InitAnswer{RootToken: wire.Secret(r.RootToken)}
	out.Keys, out.KeysBase64 = encode(r.Shares)
	out.Recovery, out.RecoveryBase64 = encode(r.RecoveryShares)
	return out, nil
}

func errPGP() error {
	return fault.New(fault.Unsupported, "key shares are not encrypted to PGP keys here; give each share to its holder by a wrapped answer")
}

func encode(shares [][]byte) (inHex, inBase64 []string) {
	inHex, inBase64 = []string{}, []string{}
	for _, s := range shares {
		inHex = append(inHex, hex.EncodeToString(s))
		inBase64 = append(inBase64, base64.StdEncoding.EncodeToString(s))
	}
	return inHex, inBase64
}

// decodeShare reads a share in hex or base64.
func decodeShare(text wire.Secret) ([]byte, error) {
	if b, err := hex.DecodeString(text.Reveal()); err == nil && len(b) > 0 {
		return b, nil
	}
	if b, err := base64.StdEncoding.DecodeString(text.Reveal()); err == nil && len(b) > 0 {
		return b, nil
	}
	return nil, fault.New(fault.Invalid, "'key' must be a valid hex or base64 string")
}

// Unseal is one share.
type Unseal struct {
	Key     wire.Secret `json:"key" doc:"A key share, in hex or base64."`
	Reset   wire.Bool   `json:"reset" doc:"Forget the shares given so far."`
	Migrate wire.Bool   `json:"migrate" doc:"Accepted for Vault's clients: seals migrate by configuration."`
}

func (s *System) unseal(ctx context.Context, by route.Caller, in Unseal) (SealStatus, error) {
	var share []byte
	if !in.Reset {
		if in.Key == "" {
			return SealStatus{}, fault.New(fault.Invalid, "'key' must be specified in request body as JSON, or 'reset' set to true")
		}
		var err error
		if share, err = decodeShare(in.Key); err != nil {
			return SealStatus{}, err
		}
	}
	if err := s.Node.Unseal(ctx, share, bool(in.Reset)); err != nil {
		return SealStatus{}, err
	}
	return s.sealStatus(ctx, by, route.Nothing{})
}

func (s *System) seal(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	return route.Empty{}, s.Node.Seal(ctx)
}

func (s *System) stepDown(context.Context, route.Caller, route.Nothing) (route.Empty, error) {
	return route.Empty{}, nil
}

// GiveShares says how many shares are given out.
type GiveShares struct {
	Shares    wire.Int `json:"secret_shares" doc:"Key shares to give out."`
	Threshold wire.Int `json:"secret_threshold" doc:"Shares needed."`
}

// Shares are shown once.
type Shares struct {
	Keys       []string `json:"keys"`
	KeysBase64 []string `json:"keys_base64"`
}

func (s *System) giveShares(ctx context.Context, _ route.Caller, in GiveShares) (Shares, error) {
	parts, err := s.Node.GiveShares(ctx, int(in.Shares), int(in.Threshold))
	keys, in64 := encode(parts)
	return Shares{keys, in64}, err
}

// RekeyInit says how many shares the new key has.
type RekeyInit struct {
	Shares    wire.Int     `json:"secret_shares" doc:"New key shares."`
	Threshold wire.Int     `json:"secret_threshold" doc:"Of them needed."`
	Verify    wire.Bool    `json:"require_verification" doc:"Keep the old shares in force until the new ones were given once."`
	Backup    wire.Bool    `json:"backup" doc:"Not supported."`
	PGP       wire.Strings `json:"pgp_keys" doc:"Not supported."`
}

// RekeyAnswer is how a rekey stands, in Vault's shape.
type RekeyAnswer struct {
	route.Bare
	Nonce        string   `json:"nonce"`
	Started      bool     `json:"started"`
	Threshold    int      `json:"t"`
	Shares       int      `json:"n"`
	Progress     int      `json:"progress"`
	Required     int      `json:"required"`
	Fingerprints []string `json:"pgp_fingerprints"`
	Backup       bool     `json:"backup"`
	Verify       bool     `json:"verification_required"`
	VerifyNonce  string   `json:"verification_nonce,omitempty"`
	Complete     bool     `json:"complete,omitempty"`
	Keys         []string `json:"keys,omitempty"`
	KeysBase64   []string `json:"keys_base64,omitempty"`
}

func rekeyAnswer(st node.RekeyStatus) RekeyAnswer {
	out := RekeyAnswer{
		Nonce: st.Nonce, Started: st.Started, Threshold: st.Threshold, Shares: st.Shares, Progress: st.Progress,
		Required: st.Required, Verify: st.Verify, VerifyNonce: st.VerifyNonce, Complete: st.Complete,
	}
	out.Keys, out.KeysBase64 = encode(st.NewShares)
	return out
}

func (s *System) rekeyStatus(ctx context.Context, _ route.Caller, _ route.Nothing) (RekeyAnswer, error) {
	st, err := s.Node.RekeyStatus(ctx)
	return rekeyAnswer(st), err
}

func (s *System) rekeyInit(ctx context.Context, _ route.Caller, in RekeyInit) (RekeyAnswer, error) {
	if len(in.PGP) > 0 || bool(in.Backup) {
		return RekeyAnswer{}, errPGP()
	}
	st, err := s.Node.RekeyInit(ctx, node.RekeyRequest{Shares: int(in.Shares), Threshold: int(in.Threshold), Verify: bool(in.Verify)})
	return rekeyAnswer(st), err
}

func (s *System) rekeyCancel(context.Context, route.Caller, route.Nothing) (route.Empty, error) {
	s.Node.RekeyCancel()
	return route.Empty{}, nil
}

// ShareForNonce is one share for a collection under way.
type ShareForNonce struct {
	Key   wire.Secret `json:"key" doc:"A key share, in hex or base64."`
	Nonce string      `json:"nonce" doc:"The nonce that the start was answered with."`
}

func (s *System) rekeyUpdate(ctx context.Context, _ route.Caller, in ShareForNonce) (RekeyAnswer, error) {
	share, err := decodeShare(in.Key)
	if err != nil {
		return RekeyAnswer{}, err
	}
	st, err := s.Node.RekeyUpdate(ctx, in.Nonce, share)
	return rekeyAnswer(st), err
}

// RekeyVerification is how the verification of new shares stands.
type RekeyVerification struct {
	route.Bare
	Nonce     string `json:"nonce"`
	Started   bool   `json:"started"`
	Threshold int    `json:"t"`
	Shares    int    `json:"n"`
	Progress  int    `json:"progress"`
	Complete  bool   `json:"complete"`
}

func verification(st node.RekeyStatus) RekeyVerification {
	return RekeyVerification{
		Nonce: st.VerifyNonce, Started: st.VerifyNonce != "" && !st.Complete, Threshold: st.Threshold, Shares: st.Shares,
		Progress: st.VerifyProgress, Complete: st.Complete,
	}
}

func (s *System) rekeyVerifyStatus(ctx context.Context, _ route.Caller, _ route.Nothing) (RekeyVerification, error) {
	st, err := s.Node.RekeyStatus(ctx)
	return verification(st), err
}

func (s *System) rekeyVerify(ctx context.Context, _ route.Caller, in ShareForNonce) (RekeyVerification, error) {
	share, err := decodeShare(in.Key)
	if err != nil {
		return RekeyVerification{}, err
	}
	st, err := s.Node.RekeyVerify(ctx, in.Nonce, share)
	return verification(st), err
}

func (s *System) rekeyVerifyRestart(ctx context.Context, _ route.Caller, _ route.Nothing) (RekeyVerification, error) {
	st, err := s.Node.RekeyVerifyRestart(ctx)
	return verification(st), err
}

// GenerateInit starts the making of a root token.
type GenerateInit struct {
	OTP wire.Secret `json:"otp" doc:"A one-time pad as long as the answer's otp_length says."`
	PGP string      `json:"pgp_key" doc:"Not supported."`
}

// GenerateAnswer is how the making of a root token stands. Vault's clients read
// it at the top level, OpenBao's in data.
type GenerateAnswer struct {
	route.Doubled
	Nonce       string `json:"nonce"`
	Started     bool   `json:"started"`
	Progress    int    `json:"progress"`
	Required    int    `json:"required"`
	Complete    bool   `json:"complete"`
	Encoded     string `json:"encoded_token"`
	EncodedRoot string `json:"encoded_root_token"`
	Fingerprint string `json:"pgp_fingerprint"`
	OTP         string `json:"otp"`
	OTPLength   int    `json:"otp_length"`
}

func generateAnswer(st node.GenerateStatus) GenerateAnswer {
	return GenerateAnswer{
		Nonce: st.Nonce, Started: st.Started, Progress: st.Progress, Required: st.Required, Complete: st.Complete,
		Encoded: st.Encoded, EncodedRoot: st.Encoded, OTPLength: st.PadLength,
	}
}

func (s *System) generateStatus(ctx context.Context, _ route.Caller, _ route.Nothing) (GenerateAnswer, error) {
	st, err := s.Node.GenerateStatus(ctx)
	return generateAnswer(st), err
}

func (s *System) generateInit(ctx context.Context, _ route.Caller, in GenerateInit) (GenerateAnswer, error) {
	if in.PGP != "" {
		return GenerateAnswer{}, errPGP()
	}
	pad := in.OTP.Reveal()
	if pad == "" {
		pad = s.NewPad() // as Vault does for a client that brings none
	}
	st, err := s.Node.GenerateInit(ctx, pad)
	out := generateAnswer(st)
	if in.OTP == "" && err == nil {
		out.OTP = pad
	}
	return out, err
}

func (s *System) generateCancel(context.Context, route.Caller, route.Nothing) (route.Empty, error) {
	s.Node.GenerateCancel()
	return route.Empty{}, nil
}

func (s *System) generateUpdate(ctx context.Context, _ route.Caller, in ShareForNonce) (GenerateAnswer, error) {
	share, err := decodeShare(in.Key)
	if err != nil {
		return GenerateAnswer{}, err
	}
	st, err := s.Node.GenerateUpdate(ctx, in.Nonce, share)
	return generateAnswer(st), err
}

func (s *System) rotate(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	return route.Empty{}, s.Node.RotateKeys(ctx)
}

func (s *System) rotateRoot(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	return route.Empty{}, s.Node.RotateRoot(ctx)
}

// Rewrapped counts what was encrypted anew.
type Rewrapped struct {
	Rows int `json:"rows"`
}

func (s *System) rewrap(ctx context.Context, _ route.Caller, _ route.Nothing) (Rewrapped, error) {
	done := map[string]int{}
	err := s.Node.Rewrap(ctx, func(scope string, n int) { done[scope] = n })
	var out Rewrapped
	for _, n := range done {
		out.Rows += n
	}
	return out, err
}

// KeyStatus is the encryption key of the server's own rows.
type KeyStatus struct {
	route.Doubled
	Term        uint32    `json:"term"`
	Installed   wire.Time `json:"install_time"`
	Encryptions uint64    `json:"encryptions"`
}

func (s *System) keyStatus(ctx context.Context, _ route.Caller, _ route.Nothing) (KeyStatus, error) {
	st, err := s.Node.KeyStatus(ctx)
	return KeyStatus{Term: st.Term, Installed: wire.Time{Time: st.Installed}, Encryptions: st.Encryptions}, err
}
