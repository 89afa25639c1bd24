package storagetest

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP way to a server that tests can stall, cut and slow down. It
// carries bytes and looks at none.
type Proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	moved *sync.Cond // stalled, cut or done has changed
	stall bool
	apart bool
	delay time.Duration
	conns map[net.Conn]bool
	done  bool
}

// NewProxy returns a proxy to target, host:port. It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.moved = sync.NewCond(&p.mu)
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
		p.hangUp()
		p.mu.Unlock()
		tasks.Wait()
	})
	return p
}

// Addr is where the proxy listens, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Stall holds every byte back, on open connections and new ones, as a network
// does that loses all packets. Nobody is told.
func (p *Proxy) Stall() { p.set(func() { p.stall = true }) }

// Cut resets every connection, with what is on its way, and refuses new ones.
func (p *Proxy) Cut() { p.set(func() { p.apart = true; p.hangUp() }) }

// Drop resets every connection, with what is on its way, once.
func (p *Proxy) Drop() { p.set(p.hangUp) }

// Heal ends what Stall, Cut and Delay began. What Stall held back goes on.
func (p *Proxy) Heal() { p.set(func() { p.stall, p.apart, p.delay = false, false, 0 }) }

// Delay has every byte arrive d later, in both directions.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

func (p *Proxy) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.moved.Broadcast()
}

// hangUp closes every connection. p.mu is held.
func (p *Proxy) hangUp() {
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // what was sent and not read is gone
		}
		_ = c.Close()
	}
	p.moved.Broadcast()
}

// join carries bytes between near and a new connection to the target.
func (p *Proxy) join(near net.Conn) {
	defer near.Close()
	if !p.keep(near) || !p.pass(near) {
		return
	}
	defer p.forget(near)
	far, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	if !p.keep(far) {
		return
	}
	defer p.forget(far)
	var both sync.WaitGroup
	both.Go(func() { p.carry(near, far) })
	both.Go(func() { p.carry(far, near) })
	both.Wait()
}

// keep notes a connection that hangUp is to close; false refuses it.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.apart || p.done {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// piece is what one read gave, and when it may go on.
type piece struct {
	bytes []byte
	due   time.Time
}

// maxOnTheWay is how many pieces one direction of a slow way holds.
const maxOnTheWay = 1024

// carry copies from one connection to the other until either ends.
func (p *Proxy) carry(from, to net.Conn) {
	defer to.Close()
	way := make(chan piece, maxOnTheWay)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(way)
		for buf := make([]byte, 32<<10); ; {
			n, err := from.Read(buf)
			if n > 0 {
				way <- piece{bytes: slices.Clone(buf[:n]), due: time.Now().Add(p.late())}
			}
			if err != nil {
				return
			}
		}
	})
	broken := false
	for piece := range way {
		if broken {
			continue // until the reader has seen that its connection is closed
		}
		time.Sleep(time.Until(piece.due))
		if broken = !p.pass(from); !broken {
			_, err := to.Write(piece.bytes)
			broken = err != nil
		}
		if broken {
			_ = from.Close()
		}
	}
	reading.Wait()
}

func (p *Proxy) late() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// pass waits while the way is stalled; false ends the connection c.
func (p *Proxy) pass(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stall && !p.apart && !p.done {
		p.moved.Wait()
	}
	return !p.done && !p.apart && p.conns[c]
}
