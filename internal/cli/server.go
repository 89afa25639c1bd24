package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cofferhq/coffer/internal/app"
	"github.com/cofferhq/coffer/internal/config"
	"github.com/cofferhq/coffer/internal/wire"
)

// serverFlags are the flags of `coffer server`, which are Vault's.
type serverFlags struct {
	config                       []string
	dev, devTLS                  bool
	noKV, noStoreToken           bool
	rootToken, address, certDir  string
	names                        []string
	logLevel, logFormat, logFile string
}

func (s *shell) serverCommand() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "server", GroupID: "server", Args: exactly(0),
		Short: "Run a server.",
		Long: `Run a server until it is told to stop with SIGINT or SIGTERM; requests under way
are finished first. SIGHUP reads certificates anew and reopens the log file.

With -dev it is a server for tests: unsealed, plain HTTP on 127.0.0.1:8200, with
secret/ as kv version 2, and nothing is kept.`,
		Example: "  coffer server -config=/etc/coffer/coffer.hcl\n  coffer server -dev -dev-root-token-id=root",
		RunE:    func(cmd *cobra.Command, _ []string) error { return s.serve(cmd.Context(), &f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.config, "config", nil, "configuration file, or a directory of .hcl and .json files; may be given several times")
	flags.BoolVar(&f.dev, "dev", false, "run a development server, which keeps nothing")
	flags.StringVar(&f.rootToken, "dev-root-token-id", "", "its root token; COFFER_DEV_ROOT_TOKEN_ID, or one is made")
	flags.StringVar(&f.address, "dev-listen-address", "", "where it listens; COFFER_DEV_LISTEN_ADDRESS, or 127.0.0.1:8200")
	flags.BoolVar(&f.devTLS, "dev-tls", false, "serve TLS with a certificate of a private authority")
	flags.StringVar(&f.certDir, "dev-tls-cert-dir", "", "where that authority and its certificate are written")
	flags.StringSliceVar(&f.names, "dev-tls-san", nil, "more names for that certificate")
	flags.BoolVar(&f.noKV, "dev-no-kv", false, "do not mount secret/")
	flags.BoolVar(&f.noStoreToken, "dev-no-store-token", false, "do not store the root token for the commands that follow")
	flags.StringVar(&f.logLevel, "log-level", "", "trace, debug, info, warn or error; COFFER_LOG_LEVEL")
	flags.StringVar(&f.logFormat, "log-format", "", "standard or json; COFFER_LOG_FORMAT")
	flags.StringVar(&f.logFile, "log-file", "", "write the log there instead of to standard error")
	return cmd
}

func (s *shell) serve(ctx context.Context, f *serverFlags) error {
	from := config.Source{Paths: f.config, Getenv: s.overriding(map[string]string{
		"COFFER_LOG_LEVEL": f.logLevel, "COFFER_LOG_FORMAT": f.logFormat,
	})}
	switch {
	case f.dev:
		from.Dev = &config.Dev{
			RootToken: wire.Secret(f.rootToken), Address: f.address, TLS: f.devTLS || f.certDir != "" || len(f.names) > 0,
			TLSDir: f.certDir, TLSNames: f.names, NoKV: f.noKV, NoStoreToken: f.noStoreToken,
		}
	case len(f.config) == 0:
		return usage("say -config=FILE, or -dev for a server that keeps nothing; `coffer quickstart` sets one up")
	}
	cfg, err := config.Load(from)
	if err != nil {
		return err
	}
	if f.logFile != "" {
		cfg.LogFile = f.logFile
	}
	ready := s.servingNotice
	if f.dev {
		ready = s.devNotice
	}
	return app.Run(ctx, cfg, s.Version, s.Stderr, ready)
}

// overriding returns the environment with variables that flags set.
func (s *shell) overriding(set map[string]string) func(string) string {
	return func(name string) string {
		if set[name] != "" {
			return set[name]
		}
		return s.Getenv(name)
	}
}

// servingNotice says where the server answers, and what a new one waits for.
func (s *shell) servingNotice(ctx context.Context, server *app.Server) error {
	url, ca := server.Address()
	fmt.Fprintf(s.Stdout, "Coffer %s serves %s\n", s.Version.Coffer, url)
	if ca != "" {
		fmt.Fprintf(s.Stdout, "Its certificate is checked with %s\n", ca)
	}
	initialized, sealed, err := server.Initialized(ctx)
	switch {
	case err != nil:
		return err
	case !initialized:
		fmt.Fprintln(s.Stdout, "It is new: run `coffer operator init` once.")
	case sealed:
		fmt.Fprintln(s.Stdout, "It is sealed: see `coffer status`, then `coffer operator unseal`.")
	}
	return nil
}

func (s *shell) devNotice(_ context.Context, server *app.Server) error {
	url, ca := server.Address()
	root := server.DevRootToken().Reveal()
	fmt.Fprintf(s.Stdout, `Coffer %s runs as a development server: it is unsealed and keeps nothing.
Never put it where it matters.

    export COFFER_ADDR='%s'
    export VAULT_ADDR='%[2]s'
`, s.Version.Coffer, url)
	if ca != "" {
		fmt.Fprintf(s.Stdout, "    export COFFER_CACERT='%s'\n    export VAULT_CACERT='%[1]s'\n", ca)
	}
	fmt.Fprintf(s.Stdout, "\nRoot Token: %s\n", root)
	if dev := server.Dev(); dev.NoStoreToken || s.Home == "" {
		return nil
	}
	if err := s.storeToken(root); err != nil {
		s.warn("%v", err)
	}
	return nil
}

// quickstart is the file that `coffer quickstart` writes and then reads.
const quickstart = `# Written by coffer quickstart. Change it, then run
#   coffer server -config=%[3]s
storage "pebble" {
  path = %[1]q
}

# TLS with a private authority, whose certificate is tls/ca.pem in the directory
# above. For one of your own, set tls_cert_file and tls_key_file.
listener "tcp" {
  address = %[2]q
}

# The key that opens the server lies beside the store. Whoever has both has every
# secret: for more than a try, put it elsewhere with path, or use another seal.
seal "keyfile" {}
`

func (s *shell) quickstartCommand() *cobra.Command {
	var data, address string
	cmd := &cobra.Command{
		Use: "quickstart", GroupID: "server", Args: exactly(0),
		Short: "Set a server up in a directory, and run it.",
		Long: `Set a server up in a directory, the first time, and run it: TLS with a private
authority, opened by a key file, secret/ as kv version 2. Everything is kept; run
it again and it goes on. The directory holds coffer.hcl, which you may change,
and root-token, readable by you only.`,
		Example: "  coffer quickstart -data=./coffer-data",
		RunE:    func(cmd *cobra.Command, _ []string) error { return s.quickstart(cmd.Context(), data, address) },
	}
	cmd.Flags().StringVar(&data, "data", "coffer-data", "the directory")
	cmd.Flags().StringVar(&address, "listen", "127.0.0.1:8200", "where a new server listens")
	return cmd
}

func (s *shell) quickstart(ctx context.Context, data, address string) error {
	dir, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "coffer.hcl")
	if _, err := os.Stat(file); os.IsNotExist(err) {
		if err := writeWhole(file, fmt.Sprintf(quickstart, dir, address, file)); err != nil {
			return err
		}
	}
	cfg, err := config.Load(config.Source{Paths: []string{file}, Getenv: s.overriding(map[string]string{"COFFER_LOG_LEVEL": s.quietly()})})
	if err != nil {
		return err
	}
	tokenFile := filepath.Join(dir, "root-token")
	return app.Run(ctx, cfg, s.Version, s.Stderr, func(ctx context.Context, server *app.Server) error {
		initialized, sealed, err := server.Initialized(ctx)
		if err != nil {
			return err
		}
		if !initialized {
			_, err := server.Initialize(ctx, app.FirstStart{KV: true, Keep: func(root wire.Secret) error {
				return writeWhole(tokenFile, root.Reveal()+"\n")
			}})
			if err != nil {
				return err
			}
		} else if sealed {
			return fmt.Errorf("the server in %s does not open by itself; run `coffer server -config=%s` and see `coffer status`", dir, file)
		}
		s.quickstartNotice(server, tokenFile)
		return nil
	})
}

// quietly returns the level of a quickstart's log: warnings, so that the notice
// is seen.
func (s *shell) quietly() string {
	if level := s.setting("LOG_LEVEL"); level != "" {
		return level
	}
	return "warn"
}

func (s *shell) quickstartNotice(server *app.Server, tokenFile string) {
	url, ca := server.Address()
	root := "see " + tokenFile
	if text, err := os.ReadFile(tokenFile); err == nil {
		root = string(text[:max(len(text)-1, 0)])
	}
	fmt.Fprintf(s.Stdout, `Coffer %s is running.

  Address:     %s
  Root token:  %s
  CA file:     %s

In another terminal:

  export COFFER_ADDR=%[2]s COFFER_CACERT=%[4]s COFFER_TOKEN=$(cat %[5]s)
  %[6]s kv put secret/hello name=world
  %[6]s kv get secret/hello

Ctrl-C stops it; nothing is lost.
`, s.Version.Coffer, url, root, ca, tokenFile, s.Program)
}

// writeWhole writes a file so that a crash leaves all of it or nothing; mode
// 0600.
func writeWhole(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
