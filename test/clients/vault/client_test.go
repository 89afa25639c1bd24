// Package vault runs Vault's own Go client, unmodified, against whole servers.
// It holds nothing but tests: what a client sees is what Vault answers. What
// other clients do differently is beside it, in openbao and node.
package vault

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// connect returns Vault's client, with the root token if there is one.
func connect(t testing.TB, s *apptest.Server) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	must(t, config.Error)
	config.Address, config.MaxRetries, config.Timeout = s.URL(), 0, 20*time.Second
	must(t, config.ConfigureTLS(&api.TLSConfig{CACert: s.CAFile}))
	t.Cleanup(config.HttpClient.Transport.(*http.Transport).CloseIdleConnections)
	client, err := api.NewClient(config)
	must(t, err)
	client.SetToken(s.Root)
	return client
}

// start runs a server with secret/ mounted and returns a root client for it.
func start(t testing.TB) (*apptest.Server, *api.Client) {
	t.Helper()
	s := apptest.Start(t, "")
	return s, connect(t, s)
}

// as returns a client like c that holds another token.
func as(t testing.TB, c *api.Client, token string) *api.Client {
	t.Helper()
	other, err := c.Clone()
	must(t, err)
	other.SetToken(token)
	return other
}

// user makes a token under one policy and returns a client that holds it.
func user(t testing.TB, c *api.Client, name, policy string) *api.Client {
	t.Helper()
	must(t, c.Sys().PutPolicy(name, policy))
	made, err := c.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{name}})
	must(t, err)
	return as(t, c, made.Auth.ClientToken)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// equal fails the test where got is not want.
func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %#v, want %#v", what, got, want)
	}
}

// refused fails the test unless err is an answer of the server with a status
// and a message that holds text. No text means an answer without messages.
func refused(t testing.TB, err error, status int, text string) {
	t.Helper()
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		t.Errorf("got %v, want an answer of status %d", err, status)
		return
	}
	all := strings.Join(answer.Errors, "\n")
	if answer.StatusCode != status || answer.RawError || !strings.Contains(all, text) || text == "" && len(answer.Errors) > 0 {
		t.Errorf("refused with %d %q (raw %v), want %d %q", answer.StatusCode, answer.Errors, answer.RawError, status, text)
	}
}
