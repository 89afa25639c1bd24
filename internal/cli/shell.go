package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/client"
	"github.com/cofferhq/coffer/internal/wire"
)

// shell is what commands share: the world, and the flags that all of them take.
type shell struct {
	Env
	one    *client.Client // of this run, once it is needed
	shows  *client.Client // in its place, where the request is only to be shown
	global struct {
		address, namespace, token         string
		caCert, caPath                    string
		clientCert, clientKey, serverName string
		skipVerify                        bool
		format, field, wrapTTL            string
		nonInteractive                    bool
		showCurl, showPolicy              bool
		headers                           pairs
	}
}

func (s *shell) globalFlags(root *cobra.Command) {
	f, g := root.PersistentFlags(), &s.global
	f.StringVar(&g.address, "address", "", "address of the server; COFFER_ADDR, or https://127.0.0.1:8200")
	f.StringVar(&g.namespace, "namespace", "", "namespace; COFFER_NAMESPACE")
	f.StringVar(&g.caCert, "ca-cert", "", "PEM file of the authority that the server's certificate is checked with; COFFER_CACERT")
	f.StringVar(&g.caPath, "ca-path", "", "directory of such files; COFFER_CAPATH")
	f.StringVar(&g.clientCert, "client-cert", "", "PEM file of a certificate to show the server; COFFER_CLIENT_CERT")
	f.StringVar(&g.clientKey, "client-key", "", "PEM file of its key; COFFER_CLIENT_KEY")
	f.StringVar(&g.serverName, "tls-server-name", "", "name that the server's certificate must hold; COFFER_TLS_SERVER_NAME")
	f.BoolVar(&g.skipVerify, "tls-skip-verify", false, "believe any certificate: only for tests; COFFER_SKIP_VERIFY")
	f.StringVar(&g.format, "format", "", "table, json or yaml; COFFER_FORMAT, or table")
	f.StringVar(&g.field, "field", "", "print only this field, as it is")
	f.StringVar(&g.wrapTTL, "wrap-ttl", "", "put the answer behind a wrapping token that lives so long; COFFER_WRAP_TTL")
	f.Var(&g.headers, "header", "name=value of a header to send; may be given several times")
	f.BoolVar(&g.nonInteractive, "non-interactive", false, "never ask anything")
	f.BoolVar(&g.showCurl, "output-curl-string", false, "send nothing, and print the request as a curl command")
	f.BoolVar(&g.showPolicy, "output-policy", false, "send nothing, and print the policy that the request needs")
}

// setting returns the environment's COFFER_name, or VAULT_name where that is
// unset.
func (s *shell) setting(name string) string {
	if v := s.Getenv("COFFER_" + name); v != "" {
		return v
	}
	return s.Getenv("VAULT_" + name)
}

// client returns the client that the flags, the environment and the token file
// make, in this order.
func (s *shell) client() (*client.Client, error) {
	if s.one == nil {
		if err := s.connect(); err != nil {
			return nil, err
		}
	}
	if s.shows != nil {
		return s.shows, nil
	}
	return s.one, nil
}

// connect makes the clients of this run. They connect to nothing yet.
func (s *shell) connect() error {
	g := &s.global
	if g.showCurl && g.showPolicy {
		return usage("-output-curl-string and -output-policy exclude each other")
	}
	cfg, err := client.FromEnvironment(s.overriding(map[string]string{"COFFER_ADDR": g.address}))
	if err != nil {
		return err
	}
	for _, o := range []struct {
		to   *string
		from string
	}{
		{&cfg.Address, g.address}, {&cfg.Namespace, g.namespace}, {&cfg.CACert, g.caCert}, {&cfg.CAPath, g.caPath},
		{&cfg.ClientCert, g.clientCert}, {&cfg.ClientKey, g.clientKey}, {&cfg.ServerName, g.serverName},
	} {
		if o.from != "" {
			*o.to = o.from
		}
	}
	cfg.SkipVerify = cfg.SkipVerify || g.skipVerify
	if cfg.Token == "" {
		token, err := s.storedToken()
		if err != nil {
			return err
		}
		cfg.Token = client.Secret(token)
	}
	if s.one, err = client.New(cfg); err != nil || !g.showCurl && !g.showPolicy {
		return err
	}
	cfg.Transport = &instead{to: s.Stdout, config: cfg, policy: g.showPolicy}
	cfg.MaxRetries = -1
	if strings.HasPrefix(cfg.Address, "unix:") {
		cfg.Address = "http://localhost" // a socket needs the client's own transport
	}
	s.shows, err = client.New(cfg)
	return err
}

// look sends a request that a command needs to know what to ask for. It is sent
// also where the command's own request is only shown.
func (s *shell) look(ctx context.Context, r client.Request) (*client.Response, error) {
	if _, err := s.client(); err != nil {
		return nil, err
	}
	return s.send(ctx, s.one, r)
}

// do sends one request. Beside a refusal stands the answer that it came with.
func (s *shell) do(ctx context.Context, r client.Request) (*client.Response, error) {
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	return s.send(ctx, c, r)
}

func (s *shell) send(ctx context.Context, c *client.Client, r client.Request) (*client.Response, error) {
	if r.WrapTTL == 0 {
		text := s.global.wrapTTL
		if text == "" {
			text = s.setting("WRAP_TTL")
		}
		if text != "" {
			var err error
			if r.WrapTTL, err = wire.ParseDuration(text); err != nil {
				return nil, usage("-wrap-ttl: %v", err)
			}
		}
	}
	for name, value := range s.global.headers {
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set(name, value)
	}
	answer, err := c.Do(ctx, r)
	if err != nil {
		return answer, refused(err)
	}
	for _, w := range answer.Warnings {
		s.warn("%s", w)
	}
	return answer, nil
}

// ask sends one request and shows its answer; done is said where it holds
// nothing.
func (s *shell) ask(ctx context.Context, r client.Request, done string, args ...any) error {
	answer, err := s.do(ctx, r)
	if err != nil {
		return err
	}
	return s.showOr(answer, done, args...)
}

// showOr shows an answer, or says what was done where it holds nothing.
func (s *shell) showOr(answer *client.Response, done string, args ...any) error {
	if !empty(answer) {
		return s.show(answer)
	}
	return s.say(done, args...)
}

// empty reports whether an answer holds nothing that could be shown.
func empty(r *client.Response) bool {
	return r.Data == nil && r.Auth == nil && r.WrapInfo == nil && r.LeaseID == "" && (len(r.Body) == 0 || r.RequestID != "")
}

// say tells a person what was done; machines that asked for a format get nothing
// they would have to parse.
func (s *shell) say(format string, args ...any) error {
	if s.format() != "table" || s.global.field != "" {
		return nil
	}
	_, err := fmt.Fprintf(s.Stdout, format+"\n", args...)
	return err
}

func (s *shell) warn(format string, args ...any) {
	fmt.Fprintln(s.Stderr, "Warning:", printableLines(fmt.Sprintf(format, args...)))
}

// The token files: Coffer's own is written; Vault's is read where that is not
// there.
const (
	tokenFile      = ".coffer-token"
	vaultTokenFile = ".vault-token"
)

// storedToken returns the token that `coffer login` stored, "" when there is
// none.
func (s *shell) storedToken() (string, error) {
	if s.Home == "" {
		return "", nil
	}
	files := []string{tokenFile, vaultTokenFile}
	if s.vaultIsElsewhere() {
		files = files[:1]
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(s.Home, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read the stored token: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	return "", nil
}

// vaultIsElsewhere reports whether Vault's command line speaks with another
// server, whose token is not for this one to see.
func (s *shell) vaultIsElsewhere() bool {
	here, there := s.global.address, s.Getenv("VAULT_ADDR")
	if here == "" {
		here = s.Getenv("COFFER_ADDR")
	}
	return here != "" && there != "" && strings.TrimSuffix(here, "/") != strings.TrimSuffix(there, "/")
}

// storeToken keeps a token for the commands that follow, readable by its owner
// only.
func (s *shell) storeToken(token string) error {
	if s.Home == "" {
		return fmt.Errorf("there is no home directory to store the token in; set HOME, or use -no-store")
	}
	path := filepath.Join(s.Home, tokenFile)
	temporary, err := os.CreateTemp(s.Home, tokenFile+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("store the token: %w", err)
	}
	defer os.Remove(temporary.Name())
	if _, err := temporary.WriteString(token); err != nil {
		temporary.Close()
		return fmt.Errorf("store the token: %w", err)
	}
	if err := temporary.Close(); err != nil {
		return fmt.Errorf("store the token: %w", err)
	}
	return os.Rename(temporary.Name(), path)
}
