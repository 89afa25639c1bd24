package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

// TestMain lets scripts run this program as coffer.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"coffer": func() { os.Exit(Main(context.Background(), os.Args[1:], FromProcess())) },
	})
}

// TestScripts runs testdata/script. A script is a command's example: it has a
// server of its own, with secret/ as kv version 2, and speaks to it as root. One
// whose name starts with bare_ has none, and one whose name starts with shamir_ one
// with a Shamir seal that nobody initialized. $DATA is the server's directory.
// Besides testscript's commands it has
//
//	capture VAR COMMAND...  the command's output, trimmed, in a variable
//	exits CODE COMMAND...   the command must end with this code
//	blank stdout|stderr     it must have printed nothing
//	server stop|start|seal  the script's server; it starts on another port
//	port VAR                a free port of 127.0.0.1, for a server of its own
//	eventually COMMAND...   tries again, for a while, until the command succeeds
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			// The race detector makes every program wait for a second at its end.
			env.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
			tb := env.T().(testing.TB)
			_, name, _ := strings.Cut(tb.Name(), "/")
			if !strings.HasPrefix(name, "bare_") {
				var s *apptest.Server
				if strings.HasPrefix(name, "shamir_") {
					s = apptest.Uninitialized(tb, `seal "shamir" {}`)
				} else {
					s = apptest.Start(tb, "")
				}
				env.Setenv("DATA", s.Dir)
				env.Values[serverKey{}] = &scriptServer{tb, s}
				env.Setenv("COFFER_ADDR", s.URL())
				env.Setenv("COFFER_CACERT", s.CAFile)
				env.Setenv("COFFER_TOKEN", s.Root)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"capture": capture, "exits": exits, "blank": blank, "server": serverOfScript, "port": port, "eventually": eventually,
		},
	})
}

// serverKey is where a script's server lies among its values.
type serverKey struct{}

type scriptServer struct {
	tb testing.TB
	*apptest.Server
}

func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: capture VAR COMMAND...")
	}
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("it ended with code %d, want %d", got, want)
	}
}

func blank(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: blank stdout|stderr")
	}
	if text := ts.ReadFile(args[0]); (text == "") == neg {
		ts.Fatalf("%s holds %q", args[0], text)
	}
}

func port(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: port VAR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	ts.Check(l.Close())
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually COMMAND...")
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		if time.Since(start) > 30*time.Second {
			ts.Fatalf("it does not succeed: %v", err)
		}
	}
}

func serverOfScript(ts *testscript.TestScript, neg bool, args []string) {
	s, ok := ts.Value(serverKey{}).(*scriptServer)
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: server stop|start|seal")
	}
	switch args[0] {
	case "stop":
		s.Stop(s.tb)
	case "start":
		s.Run(s.tb)
		ts.Setenv("COFFER_ADDR", s.URL())
	case "seal":
		s.Must(s.tb, 204, "POST", "sys/seal", "")
	default:
		ts.Fatalf("there is no server %s", args[0])
	}
}
