package client_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/app/apptest"
)

func TestTokens(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	auth := must[*client.Auth](t)(c.Token().Create(ctx, client.TokenRequest{
		Policies: []string{"default"}, TTL: client.Seconds(time.Hour), Meta: map[string]string{"a": "b"}, DisplayName: "me", NumUses: 0,
	}))
	if auth.TTL.Duration() != time.Hour || !auth.Renewable || auth.Metadata["a"] != "b" || auth.Type != "service" {
		t.Errorf("created: %+v", auth)
	}
	mine := c.WithToken(auth.Token).Token()
	info := must[*client.TokenInfo](t)(mine.LookupSelf(ctx))
	if info.Accessor != auth.Accessor || info.ID != auth.Token || info.Expires.IsZero() || info.Orphan || info.DisplayName != "token-me" {
		t.Errorf("lookup-self: %+v", info)
	}
	if renewed := must[*client.Auth](t)(mine.RenewSelf(ctx, 30*time.Minute)); renewed.TTL.Duration() != 30*time.Minute || renewed.Token != auth.Token {
		t.Errorf("renewed: %+v", renewed)
	}
	must[*client.Auth](t)(c.Token().Renew(ctx, auth.Token, 0))
	must[*client.Auth](t)(c.Token().RenewAccessor(ctx, auth.Accessor, time.Minute))
	if by := must[*client.TokenInfo](t)(c.Token().LookupAccessor(ctx, auth.Accessor)); by.ID != "" || by.TTL.Duration() > time.Minute {
		t.Errorf("by accessor: %+v", by)
	}
	if by := must[*client.TokenInfo](t)(c.Token().Lookup(ctx, auth.Token)); by.Accessor != auth.Accessor {
		t.Errorf("by token: %+v", by)
	}
	if list := must[[]string](t)(c.Token().Accessors(ctx)); !slices.Contains(list, auth.Accessor) {
		t.Errorf("accessors: %q", list)
	}
	ok(t, mine.RevokeSelf(ctx))
	if _, err := mine.LookupSelf(ctx); !client.IsDenied(err) {
		t.Errorf("after its end: %v", err)
	}
	orphan := must[*client.Auth](t)(c.Token().CreateOrphan(ctx, client.TokenRequest{Renewable: new(false)}))
	if !orphan.Orphan || orphan.Renewable {
		t.Errorf("orphan: %+v", orphan)
	}
	ok(t, c.Token().RevokeAccessor(ctx, orphan.Accessor))
	batch := must[*client.Auth](t)(c.Token().Create(ctx, client.TokenRequest{Type: "batch", Policies: []string{"default"}}))
	if batch.Type != "batch" || c.Token().Revoke(ctx, batch.Token) == nil {
		t.Errorf("batch: %+v", batch)
	}
	if err := c.Token().KeepAlive(ctx, &client.Auth{Token: c.CallingToken()}, nil); err != nil {
		t.Errorf("keeping a token that never ends: %v", err)
	}
	short := must[*client.Auth](t)(c.Token().Create(ctx, client.TokenRequest{TTL: client.Seconds(2 * time.Second), ExplicitMaxTTL: client.Seconds(4 * time.Second)}))
	times := 0
	if err := c.Token().KeepAlive(ctx, short, func(*client.Auth) { times++ }); !errors.Is(err, client.ErrEnding) || times == 0 {
		t.Errorf("kept alive %d times: %v", times, err)
	}
	if _, err := c.WithToken(short.Token).Token().LookupSelf(ctx); err != nil {
		t.Errorf("it does not work any more when it is to be replaced: %v", err)
	}
}

func TestWrapping(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	info := must[*client.WrapInfo](t)(c.Wrapping().Wrap(ctx, database{"app", "p1"}, 90*time.Second))
	if info.TTL.Duration() != 90*time.Second || info.CreationPath != "sys/wrapping/wrap" {
		t.Errorf("wrapped: %+v", info)
	}
	anyone := c.WithToken("")
	state := must[*client.WrapState](t)(anyone.Wrapping().Lookup(ctx, info.Token))
	if state.CreationTTL.Duration() != 90*time.Second || state.CreationPath != "sys/wrapping/wrap" {
		t.Errorf("looked up: %+v", state)
	}
	again := must[*client.WrapInfo](t)(anyone.Wrapping().Rewrap(ctx, info.Token))
	if _, err := anyone.Wrapping().Unwrap(ctx, info.Token); err == nil {
		t.Error("the token before the rewrap still works")
	}
	answer := must[*client.Response](t)(anyone.Wrapping().Unwrap(ctx, again.Token))
	var got database
	ok(t, answer.Decode(&got))
	if got.Password.Reveal() != "p1" {
		t.Errorf("unwrapped: %q", got.Password.Reveal())
	}
	if _, err := anyone.Wrapping().Unwrap(ctx, again.Token); err == nil {
		t.Error("it was unwrapped twice")
	}
	token := must[*client.Response](t)(c.Do(ctx, client.Request{Method: "POST", Path: "auth/token/create", WrapTTL: time.Minute}))
	if token.WrapInfo == nil || token.WrapInfo.WrappedAccessor == "" || token.Auth != nil {
		t.Fatalf("a wrapped token: %+v", token)
	}
	if inside := must[*client.Response](t)(anyone.Wrapping().Unwrap(ctx, token.WrapInfo.Token)); inside.Auth == nil || inside.Auth.Accessor != token.WrapInfo.WrappedAccessor {
		t.Error("no token inside")
	}
}

func TestAppRoleLogin(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	ok(t, c.Sys().EnableAuth(ctx, "approle", client.Mount{Type: "approle"}))
	must[*client.Response](t)(c.Do(ctx, client.Request{Method: "POST", Path: "auth/approle/role/deploy", Body: map[string]any{"role_id": "deploy"}}))
	made := must[*client.Response](t)(c.Do(ctx, client.Request{Method: "POST", Path: "auth/approle/role/deploy/secret-id"}))
	var secret struct {
		ID client.Secret `json:"secret_id"`
	}
	ok(t, made.Decode(&secret))
	if auth := must[*client.Auth](t)(c.Login().AppRole(ctx, "", "deploy", secret.ID)); auth.Metadata["role_name"] != "deploy" {
		t.Errorf("logged in: %+v", auth)
	}
	if _, err := c.Login().AppRole(ctx, "", "deploy", "wrong"); err == nil {
		t.Error("a wrong secret id logs in")
	}
}

func TestLoginAndDenial(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	ok(t, c.Sys().EnableAuth(ctx, "people", client.Mount{Type: "userpass", Description: "staff"}))
	must[[]string](t)(c.Sys().WritePolicy(ctx, "web", `path "secret/data/web/*" { capabilities = ["read"] }`))
	must[*client.Response](t)(c.Do(ctx, client.Request{Method: "POST", Path: "auth/people/users/bob", Body: map[string]any{
		"password": client.Secret("correct horse battery staple"), "token_policies": "web", "token_ttl": "20m",
	}}))
	if _, err := c.Login().Userpass(ctx, "people", "bob", "wrong"); err == nil || client.IsNotFound(err) {
		t.Errorf("with a wrong password: %v", err)
	}
	auth := must[*client.Auth](t)(c.Login().Userpass(ctx, "people", "bob", "correct horse battery staple"))
	if auth.TTL.Duration() != 20*time.Minute || !slices.Contains(auth.Policies, "web") || auth.Metadata["username"] != "bob" {
		t.Errorf("logged in: %+v", auth)
	}
	bob := c.WithToken(auth.Token)
	_, err := bob.KV("secret").Get(ctx, "other")
	var refusal *client.Error
	if !client.IsDenied(err) || !errors.As(err, &refusal) || refusal.RequestID == "" || !strings.Contains(err.Error(), refusal.RequestID) ||
		!strings.HasPrefix(err.Error(), "GET secret/data/other: 403: ") {
		t.Errorf("denied: %v", err)
	}
	why := must[*client.Why](t)(c.Sys().Why(ctx, refusal.RequestID))
	if why.Accessor != auth.Accessor || why.Path != "secret/data/other" || why.Need != "read" || !slices.Contains(why.Policies, "web") {
		t.Errorf("why: %+v", why)
	}
	caps := must[map[string][]string](t)(bob.Sys().Capabilities(ctx, "secret/data/web/x", "secret/data/other"))
	if !slices.Equal(caps["secret/data/web/x"], []string{"read"}) || !slices.Equal(caps["secret/data/other"], []string{"deny"}) {
		t.Errorf("capabilities: %v", caps)
	}
	ok(t, c.Sys().DisableAuth(ctx, "people"))
	if _, err := bob.Token().LookupSelf(ctx); !client.IsDenied(err) {
		t.Errorf("after its method's end: %v", err)
	}
}

func TestSystem(t *testing.T) {
	_, c := start(t)
	ctx := t.Context()
	ok(t, c.Sys().Mount(ctx, "team/a", client.Mount{Type: "kv", Options: map[string]string{"version": "2"}, Config: client.MountConfig{MaxTTL: client.Seconds(time.Hour)}}))
	mounts := must[map[string]client.Mount](t)(c.Sys().Mounts(ctx))
	if m := mounts["team/a/"]; m.Type != "kv" || m.Options["version"] != "2" || m.Config.MaxTTL.Duration() != time.Hour || m.Accessor == "" {
		t.Errorf("mounts: %+v", mounts)
	}
	ok(t, c.Sys().Tune(ctx, "team/a", client.MountConfig{MaxTTL: client.Seconds(2 * time.Hour)}))
	must[*client.VersionInfo](t)(c.KV("team/a").Put(ctx, "x", map[string]string{"k": "v"}))
	ok(t, c.Sys().Unmount(ctx, "team/a/"))
	if auths := must[map[string]client.Mount](t)(c.Sys().Auths(ctx)); auths["token/"].Type != "token" {
		t.Errorf("auth methods: %+v", auths)
	}
	const text = `path "secret/*" { capabilities = ["read"] }`
	must[[]string](t)(c.Sys().WritePolicy(ctx, "p", text))
	if got := must[string](t)(c.Sys().Policy(ctx, "p")); got != text {
		t.Errorf("policy: %q", got)
	}
	ok(t, c.Sys().DeletePolicy(ctx, "p"))
	if list := must[[]string](t)(c.Sys().Policies(ctx)); slices.Contains(list, "p") || !slices.Contains(list, "root") {
		t.Errorf("policies: %q", list)
	}
	before := must[*client.KeyStatus](t)(c.Sys().KeyStatus(ctx))
	ok(t, c.Sys().Rotate(ctx))
	if after := must[*client.KeyStatus](t)(c.Sys().KeyStatus(ctx)); after.Term != before.Term+1 {
		t.Errorf("key status: %+v, before %+v", after, before)
	}
}

func TestSealedServer(t *testing.T) {
	s := apptest.Uninitialized(t, `seal "shamir" {}`)
	c := connect(t, s, "")
	ctx := t.Context()
	if h := must[*client.Health](t)(c.Sys().Health(ctx)); h.Initialized || !h.Sealed || h.Version == "" {
		t.Errorf("health at first: %+v", h)
	}
	if must[bool](t)(c.Sys().Initialized(ctx)) {
		t.Error("initialized at first")
	}
	keys := must[*client.InitAnswer](t)(c.Sys().Init(ctx, client.InitRequest{Shares: 3, Threshold: 2}))
	if len(keys.Keys) != 3 || keys.RootToken == "" {
		t.Fatalf("%d keys", len(keys.Keys))
	}
	if text := fmt.Sprintf("%v %+v %#v", keys, *keys, keys.Keys); strings.Contains(text, keys.Keys[0].Reveal()) || strings.Contains(text, keys.RootToken.Reveal()) {
		t.Errorf("the answer is printed as %s", text)
	}
	root := c.WithToken(keys.RootToken)
	open := func() {
		t.Helper()
		if st := must[*client.SealStatus](t)(c.Sys().Unseal(ctx, keys.Keys[0])); !st.Sealed || st.Progress != 1 || st.Threshold != 2 {
			t.Errorf("after one share: %+v", st)
		}
		if st := must[*client.SealStatus](t)(c.Sys().Unseal(ctx, keys.KeysBase64[1])); st.Sealed {
			t.Errorf("after two shares: %+v", st)
		}
	}
	if st := must[*client.SealStatus](t)(c.Sys().SealStatus(ctx)); st.Sealed {
		open()
	}
	ok(t, root.Sys().Seal(ctx))
	must[*client.SealStatus](t)(c.Sys().Unseal(ctx, keys.Keys[2]))
	if st := must[*client.SealStatus](t)(c.Sys().ResetUnseal(ctx)); st.Progress != 0 {
		t.Errorf("after a reset: %+v", st)
	}
	began := time.Now()
	if _, err := root.KV("secret").Put(ctx, "x", map[string]string{"k": "v"}); !client.IsSealed(err) {
		t.Errorf("a write to a sealed server: %v", err)
	}
	if _, err := root.KV("secret").Get(ctx, "x"); !client.IsSealed(err) || time.Since(began) > 10*time.Second {
		t.Errorf("a read of a sealed server: %v", err)
	}
	open()
	must[*client.TokenInfo](t)(root.Token().LookupSelf(ctx))
}
