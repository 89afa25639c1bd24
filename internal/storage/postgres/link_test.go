package postgres

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// link is a TCP connection to a server that tests can stall and cut.
type link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	moves *sync.Cond
	stall bool
	conns map[net.Conn]bool
	done  bool
}

func newLink(t testing.TB, target string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &link{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.moves = sync.NewCond(&p.mu)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { p.join(near) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.done = true
		p.mu.Unlock()
		p.cut()
		tasks.Wait()
	})
	return p
}

func (p *link) addr() string { return p.listener.Addr().String() }

// join carries bytes between near and a new connection to the target.
func (p *link) join(near net.Conn) {
	defer near.Close()
	if !p.pass() {
		return
	}
	far, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	p.mu.Lock()
	p.conns[near], p.conns[far] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			defer near.Close()
			defer far.Close()
			buf := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buf)
				if n > 0 && p.pass() {
					if _, err := way[1].Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					if err != io.EOF {
						return
					}
					return
				}
			}
		})
	}
	both.Wait()
	p.mu.Lock()
	delete(p.conns, near)
	delete(p.conns, far)
	p.mu.Unlock()
}

// pass waits while the link is stalled; false ends it.
func (p *link) pass() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stall && !p.done {
		p.moves.Wait()
	}
	return !p.done
}

// setStall holds every byte back, or lets them go on.
func (p *link) setStall(stall bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stall = stall
	p.moves.Broadcast()
}

// cut closes every connection, whatever is on its way.
func (p *link) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moves.Broadcast()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // what was sent and not read is gone
		}
		_ = c.Close()
	}
}
