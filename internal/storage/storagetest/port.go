package storagetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

var given sync.Map // ports that FreePort has given away

// FreePort returns a port of loopback for a server that is killed and started again:
// none that the system would give to an outgoing connection meanwhile, as it does
// from 32768 on, and none that was given before.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
