package cli

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/cofferhq/coffer/client"
)

// refused gives an error of the server its exit code.
func refused(err error) error {
	var e *client.Error
	if errors.As(err, &e) {
		return &exit{exitRefused, err}
	}
	return err
}

// advice returns lines that say what to do about an error.
func advice(err error) []string {
	var e *client.Error
	var network *net.OpError
	switch {
	case errors.As(err, &e) && e.Status == 403:
		lines := []string{"", "The token may not do this, or is not valid any more."}
		if e.RequestID != "" {
			lines = append(lines, fmt.Sprintf("Why:   coffer policy why %s   (for somebody who may ask)", e.RequestID))
		}
		return append(lines, "Other: coffer login, or set COFFER_TOKEN")
	case errors.As(err, &e) && e.Status == 503 && strings.Contains(err.Error(), "sealed"):
		return []string{"", "The server is sealed: coffer status, then coffer operator unseal"}
	case client.IsConflict(err):
		return []string{"", "The secret is at another version than the one that was named: look at it anew, then repeat this with -cas of that."}
	case errors.Is(err, client.ErrUncertain):
		return []string{"", "Look whether it was done before you repeat it."}
	case errors.As(err, &network):
		return []string{"", "Is the server running, and is the address right? Set COFFER_ADDR or -address."}
	case strings.Contains(err.Error(), "certificate signed by unknown authority"), strings.Contains(err.Error(), "x509:"):
		return []string{"", "Name the server's authority with COFFER_CACERT or -ca-cert; a server with a private one keeps it in tls/ca.pem of its data directory."}
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return []string{"", "The server speaks plain HTTP: set COFFER_ADDR to http://…"}
	}
	return nil
}
