package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/client"
)

// What goes wrong is said with what to do about it.
func TestAdvice(t *testing.T) {
	refusal := func(status int, text string) error {
		return refused(&client.Error{Method: "GET", Path: "secret/data/x", Status: status, Errors: []string{text}, RequestID: "4f1c"})
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"denied":       {refusal(403, "permission denied"), "coffer policy why 4f1c"},
		"no token":     {refusal(403, "permission denied"), "coffer login"},
		"sealed":       {refusal(503, "the server is sealed"), "coffer operator unseal"},
		"conflict":     {refusal(400, "check-and-set parameter did not match the current version"), "-cas"},
		"uncertain":    {fmt.Errorf("POST x: %w: %w", client.ErrUncertain, errors.New("EOF")), "Look whether it was done"},
		"no server":    {fmt.Errorf("GET x: %w", &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}), "COFFER_ADDR"},
		"no authority": {errors.New("x509: certificate signed by unknown authority"), "COFFER_CACERT"},
		"plain HTTP":   {errors.New("http: server gave HTTP response to HTTPS client"), "http://"},
		"usage":        {usage("it takes no arguments"), "-help"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			explain(&out, New(Env{Getenv: func(string) string { return "" }}), c.err)
			if first, rest, _ := strings.Cut(out.String(), "\n"); !strings.HasPrefix(first, "Error: ") || !strings.Contains(rest, c.want) {
				t.Errorf("it says %q, which does not hold %q", out.String(), c.want)
			}
		})
	}
	if lines := advice(refusal(400, "no")); lines != nil {
		t.Errorf("of any refusal it says %q", lines)
	}
}

func TestExitCodes(t *testing.T) {
	var chosen *exit
	if err := refused(&client.Error{Status: 404}); !errors.As(err, &chosen) || chosen.code != exitRefused {
		t.Errorf("a refusal ends with %v", chosen)
	}
	if err := refused(errors.New("no server")); errors.As(err, &chosen) {
		t.Errorf("what is wrong here ends with %d", chosen.code)
	}
}
