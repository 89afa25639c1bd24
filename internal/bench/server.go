package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is a Coffer that was started for the benchmark.
type server struct {
	dir, address, config string
	cmd                  *exec.Cmd
	ended                <-chan error // of the process
	root, user           *target
}

const userPolicy = `path "secret/data/bench/*" { capabilities = ["create", "update", "read"] }
path "secret/metadata/bench/*" { capabilities = ["list"] }
path "secret/metadata/bench" { capabilities = ["list"] }`

// startServer starts a new server on the embedded engine.
func startServer(ctx context.Context, dir string) (*server, error) {
	s, err := configure(dir, fmt.Sprintf("storage \"pebble\" { path = %q }\n", filepath.Join(dir, "data")))
	if err != nil {
		return nil, err
	}
	return s, s.begin(ctx)
}

// configure writes the configuration of a server that does not run yet.
func configure(dir, storage string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	sync := "always"
	if *relaxed {
		sync = "changes"
	}
	s := &server{dir: dir, address: address, config: filepath.Join(dir, "coffer.hcl")}
	text := fmt.Sprintf("%slistener \"tcp\" { address = %q }\naudit { sync = %q }\nlog_level = \"warn\"\ndisable_mlock = true\n", storage, address, sync)
	return s, os.WriteFile(s.config, []byte(text), 0o600)
}

// begin starts the server for the first time and initializes it.
func (s *server) begin(ctx context.Context) error {
	if _, err := s.start(ctx); err != nil {
		return err
	}
	root, err := newTarget("https://"+s.address, "", filepath.Join(s.dir, "data", "tls", "ca.pem"), 8)
	if err != nil {
		return err
	}
	answer, err := root.do("PUT", "/v1/sys/init", []byte(`{}`))
	if err != nil {
		return err
	}
	var init struct {
		RootToken string `json:"root_token"`
	}
	if err := json.Unmarshal(answer, &init); err != nil {
		return err
	}
	root.token, s.root = init.RootToken, root
	return nil
}

// start starts the process and waits until it answers; it returns how long that
// took.
func (s *server) start(ctx context.Context) (time.Duration, error) {
	s.cmd = exec.CommandContext(ctx, *binary, "server", "-config", s.config)
	s.cmd.Stderr = os.Stderr
	begun := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w; build it with make build", err)
	}
	probe := &http.Client{Transport: &http.Transport{
		// The certificate is checked by every measured request; this one only
		// waits for the port.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	s.ended = ended
	for time.Since(begun) < 60*time.Second {
		select {
		case err := <-ended:
			return 0, fmt.Errorf("the server ended: %v", err)
		default:
		}
		if resp, err := probe.Get("https://" + s.address + "/v1/sys/health?uninitcode=200"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return time.Since(begun), nil
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, fmt.Errorf("the server did not answer within a minute")
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.ended
}

// memory returns the process's resident memory in bytes.
func (s *server) memory() int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb int64
		if n, _ := fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	return 0
}

// prepare mounts secret/, makes the user with its narrow policy, and writes n
// secrets.
func (s *server) prepare(n int) error {
	policy, _ := json.Marshal(map[string]string{"policy": userPolicy})
	for path, body := range map[string]string{
		"/v1/sys/mounts/secret": `{"type":"kv","options":{"version":"2"}}`, "/v1/sys/policies/acl/bench": string(policy),
	} {
		if _, err := s.root.do("POST", path, []byte(body)); err != nil {
			return err
		}
	}
	answer, err := s.root.do("POST", "/v1/auth/token/create", []byte(`{"policies":["bench"],"ttl":"24h"}`))
	if err != nil {
		return err
	}
	var created struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	if err := json.Unmarshal(answer, &created); err != nil {
		return err
	}
	if s.user, err = newTarget(s.root.url, created.Auth.ClientToken, filepath.Join(s.dir, "data", "tls", "ca.pem"), 128); err != nil {
		return err
	}
	s.user.pid = s.cmd.Process.Pid
	return s.fill(0, n)
}

// payload is a secret of 1 KiB.
var payload = []byte(`{"data":{"value":"` + strings.Repeat("x", 1024) + `"}}`)

func secretPath(n int) string { return fmt.Sprintf("/v1/secret/data/bench/s%07d", n) }

// fill writes the secrets numbered from up to below to.
func (s *server) fill(from, to int) error {
	const writers = 128
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			for n := from + w; n < to; n += writers {
				if _, err := s.user.do("POST", secretPath(n), payload); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

// serveCeiling answers every request with the body in the file, over TLS with
// the certificate in its directory, and prints its address.
func serveCeiling(file string) {
	body, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})}
	dir := filepath.Join(filepath.Dir(file), "data", "tls")
	log.Fatal(srv.ServeTLS(l, filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")))
}

// startCeiling starts serveCeiling as a process of its own.
func startCeiling(body []byte, dir string) (*target, func(), error) {
	file := filepath.Join(dir, "answer.json")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self, "-serve-ceiling", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, nil, err
	}
	t, err := newTarget("https://"+strings.TrimSpace(address), "", filepath.Join(dir, "data", "tls", "ca.pem"), 128)
	if err == nil {
		t.pid = cmd.Process.Pid
	}
	return t, stop, err
}
