package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Device is a further place that entries go to, beside the log. The log
// decides; a device that fails loses entries and is counted.
type Device interface {
	// Encode appends what Write is to be given for the entry. It must not
	// keep e.
	Encode(dst []byte, e *Entry) []byte
	// Write writes what one or more Encode calls appended.
	Write(lines []byte) error
	Close() error
}

// Bounds of a device that cannot keep up.
const (
	deviceQueue = 1 << 20               // bytes that wait for it
	deviceWait  = 20 * time.Millisecond // how long an entry waits for room in its queue
)

// DeviceStats is what a device has done since it was enabled.
type DeviceStats struct {
	Name    string
	Written uint64 // entries
	Lost    uint64 // entries that it could not take or write
	Error   string // of the last write; empty when it worked
}

// runner feeds one device from a bounded queue.
type runner struct {
	name   string
	device Device

	mu     sync.Mutex
	queue  []byte
	queued uint64 // entries in queue
	closed bool

	wake chan struct{} // the queue has entries
	room chan struct{} // the queue was emptied
	done chan struct{}

	written, lost atomic.Uint64
	failure       atomic.Pointer[string]
}

func newRunner(name string, d Device) *runner {
	r := &runner{
		name: name, device: d,
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go r.run()
	return r
}

// offer queues an entry. It waits for room no longer than deviceWait, and
// loses the entry after that.
func (r *runner) offer(e *Entry) {
	body := bodyPool.Get().(*[]byte)
	defer bodyPool.Put(body)
	*body = r.device.Encode((*body)[:0], e)
	if r.add(*body) {
		return
	}
	timer := time.NewTimer(deviceWait)
	defer timer.Stop()
	select {
	case <-r.room:
	case <-timer.C:
	case <-r.done:
	}
	if !r.add(*body) {
		r.lost.Add(1)
	}
}

func (r *runner) add(line []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.queue) > 0 && len(r.queue)+len(line) > deviceQueue {
		return false
	}
	r.queue = append(r.queue, line...)
	r.queued++
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return true
}

func (r *runner) run() {
	defer close(r.done)
	var spare []byte
	for range r.wake {
		r.mu.Lock()
		lines, n, closed := r.queue, r.queued, r.closed
		r.queue, r.queued = spare[:0], 0
		r.mu.Unlock()
		select {
		case r.room <- struct{}{}:
		default:
		}
		if n > 0 {
			r.write(lines, n)
		}
		if closed {
			return
		}
		spare = lines
	}
}

func (r *runner) write(lines []byte, n uint64) {
	if err := r.device.Write(lines); err != nil {
		text := err.Error()
		r.failure.Store(&text)
		r.lost.Add(n)
		return
	}
	r.failure.Store(nil)
	r.written.Add(n)
}

// close writes what is queued and closes the device. It waits for a device
// that hangs no longer than a second.
func (r *runner) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.device.Close()
	case <-timer.C:
		return fmt.Errorf("audit device %s hangs; its last entries may be missing", r.name)
	}
}

// devices are the devices of one log.
type devices struct {
	mu  sync.Mutex
	all atomic.Pointer[[]*runner] // replaced as a whole, by name
}

// offer gives an entry that is in the log to all devices.
func (d *devices) offer(e *Entry) {
	if all := d.all.Load(); all != nil {
		for _, r := range *all {
			r.offer(e)
		}
	}
}

func (d *devices) list() []*runner {
	if all := d.all.Load(); all != nil {
		return *all
	}
	return nil
}

func (d *devices) stats() []DeviceStats {
	var out []DeviceStats
	for _, r := range d.list() {
		s := DeviceStats{Name: r.name, Written: r.written.Load(), Lost: r.lost.Load()}
		if text := r.failure.Load(); text != nil {
			s.Error = *text
		}
		out = append(out, s)
	}
	return out
}

// close closes all devices at the same time.
func (d *devices) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.list()
	d.all.Store(nil)
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, r := range all {
		wait.Go(func() { errs[i] = r.close() })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// EnableDevice sends every entry from now on to d too, under a name that is
// not taken. The log closes d.
func (l *Log) EnableDevice(name string, d Device) error {
	l.devices.mu.Lock()
	defer l.devices.mu.Unlock()
	all := l.devices.list()
	at, taken := slices.BinarySearchFunc(all, name, func(r *runner, name string) int {
		return strings.Compare(r.name, name)
	})
	if taken {
		return fmt.Errorf("audit device %s is enabled already", name)
	}
	next := slices.Insert(slices.Clone(all), at, newRunner(name, d))
	l.devices.all.Store(&next)
	return nil
}

// DisableDevice writes what is queued for a device and closes it. A name that
// is not enabled is no error.
func (l *Log) DisableDevice(name string) error {
	l.devices.mu.Lock()
	all := l.devices.list()
	at := slices.IndexFunc(all, func(r *runner) bool { return r.name == name })
	if at < 0 {
		l.devices.mu.Unlock()
		return nil
	}
	r := all[at]
	next := slices.Delete(slices.Clone(all), at, at+1)
	l.devices.all.Store(&next)
	l.devices.mu.Unlock()
	return r.close()
}
