package process

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Supervisor is told how the server is, in the words of sd_notify(3). The zero
// Supervisor tells nobody.
type Supervisor struct{ socket string }

// FindSupervisor returns the supervisor that started this process. It takes the
// variable out of the environment, so that children do not speak for the server.
func FindSupervisor() Supervisor {
	s := Supervisor{os.Getenv("NOTIFY_SOCKET")}
	_ = os.Unsetenv("NOTIFY_SOCKET")
	return s
}

// Ready says that the server answers requests.
func (s Supervisor) Ready(status string) error { return s.send("READY=1\nSTATUS=" + line(status)) }

// Status says in words how the server is.
func (s Supervisor) Status(status string) error { return s.send("STATUS=" + line(status)) }

// Reloading says that the configuration is read again; call Ready when it is.
func (s Supervisor) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	return s.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10))
}

// Stopping says that the server is going down.
func (s Supervisor) Stopping() error { return s.send("STOPPING=1") }

// Watchdog says at half the interval the supervisor asks for that the server is
// alive, until ctx ends. It returns at once where none is asked for.
func (s Supervisor) Watchdog(ctx context.Context) {
	micros, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || micros <= 0 || s.socket == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	tick := time.NewTicker(time.Duration(micros) * time.Microsecond / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// A supervisor that misses it acts by itself; there is no one else to tell.
			_ = s.send("WATCHDOG=1")
		}
	}
}

func line(text string) string { return strings.NewReplacer("\n", " ", "\r", " ").Replace(text) }

func (s Supervisor) send(state string) error {
	if s.socket == "" {
		return nil
	}
	// net turns a leading @ into the NUL of an abstract address.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	return nil
}
