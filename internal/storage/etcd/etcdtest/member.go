package etcdtest

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// memberEnv holds the settings of a member in a child process.
const memberEnv = "COFFER_ETCDTEST_MEMBER"

// settings are those of one member.
type settings struct {
	Name, Dir     string
	Client, Peer  string // URLs
	Initial       string // the members of the cluster, as etcd writes them
	Quota         int64  // bytes; 0 is etcd's own
	CA, Cert, Key string // files, for TLS to clients
	ClientCerts   bool
	HeartbeatMS   uint
	ElectionMS    uint
}

// Main must begin TestMain of a package that starts members: they are processes
// that run the test's own program. In such a process it never returns.
func Main() {
	text := os.Getenv(memberEnv)
	if text == "" {
		return
	}
	if err := serve([]byte(text)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve runs a member until it is asked to end.
func serve(text []byte) error {
	var s settings
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster, c.ClusterState = s.Name, s.Dir, s.Initial, embed.ClusterStateFlagNew
	c.LogLevel, c.LogOutputs = "warn", []string{"stderr"}
	c.QuotaBackendBytes = s.Quota
	c.BcryptCost = 4 // the least: the race detector makes the usual take seconds
	c.TickMs, c.ElectionMs = s.HeartbeatMS, s.ElectionMS
	client, err := url.Parse(s.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse(s.Peer)
	if err != nil {
		return err
	}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	if s.Cert != "" {
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = s.Cert, s.Key
		if s.ClientCerts {
			c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = s.CA, true
		}
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case err := <-e.Err():
		return err
	case <-asked:
		return nil
	}
}

// embedded is the command of a member that runs the test's own program.
func (s settings) embedded() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), memberEnv+"="+string(text), "GOMAXPROCS=2")
	return cmd, nil
}

// installed is the command of a member that runs Debian's etcd.
func (s settings) installed() (*exec.Cmd, error) {
	program, err := exec.LookPath("etcd")
	if err != nil {
		return nil, fmt.Errorf("%w: the tests need Debian's package etcd-server: scripts/test-deps", err)
	}
	return exec.Command(program, "--name", s.Name, "--data-dir", s.Dir, "--initial-cluster", s.Initial, "--initial-cluster-state", "new",
		"--listen-client-urls", s.Client, "--advertise-client-urls", s.Client,
		"--listen-peer-urls", s.Peer, "--initial-advertise-peer-urls", s.Peer, "--log-level", "warn"), nil
}

// start runs cmd with its output in a file, and ends it with the test's process.
func start(cmd *exec.Cmd, dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}
