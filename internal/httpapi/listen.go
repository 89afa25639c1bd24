package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"time"
)

// Listen opens a TCP listener on host:port, or a unix socket with the given
// mode when network is "unix". A socket file that nobody serves any more is
// replaced; one that answers, or a file of another kind, is not.
func Listen(ctx context.Context, network, address string, mode fs.FileMode) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute}}
	if network != "unix" {
		l, err := config.Listen(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		return l, nil
	}
	if err := clearSocket(ctx, address); err != nil {
		return nil, err
	}
	l, err := config.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", address, err)
	}
	if err := os.Chmod(address, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("set the mode of socket %s: %w", address, err), l.Close())
	}
	return l, nil
}

// Own gives a socket's file to a user and a group, each by name or number; ""
// leaves it as it is.
func Own(path, owner, group string) error {
	uid, gid := -1, -1
	if owner != "" {
		text := owner
		if u, err := user.Lookup(owner); err == nil {
			text = u.Uid
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("give socket %s to user %q: there is no such user", path, owner)
		}
		uid = n
	}
	if group != "" {
		text := group
		if g, err := user.LookupGroup(group); err == nil {
			text = g.Gid
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("give socket %s to group %q: there is no such group", path, group)
		}
		gid = n
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	if err := os.Lchown(path, uid, gid); err != nil {
		return fmt.Errorf("give socket %s to %s:%s: %w", path, owner, group, err)
	}
	return nil
}

// clearSocket removes a socket file that a dead server left.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is no socket; move it away or choose another address", path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if c, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("another process serves socket %s", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	return nil
}
