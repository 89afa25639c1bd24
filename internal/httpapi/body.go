package httpapi

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// firstRead is how much is set aside for a body before any of it has come. A
// client that announces much and sends little costs no more than this.
const firstRead = 16 << 10

// readBody reads the whole body within the listener's limit and rate. A body
// that is too long is refused before it is read where its length is announced.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *fault.Error) {
	if r.ContentLength > h.MaxBody {
		return nil, h.tooLarge()
	}
	pace := pace{control: http.NewResponseController(w), start: time.Now(), grace: h.BodyGrace, rate: h.MinBodyRate, most: h.readTimeout}
	// One byte more than is announced, so that the end is met without growing.
	size := int64(firstRead)
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength+1)
	}
	body := make([]byte, 0, size)
	for {
		pace.expect(int64(len(body)))
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > h.MaxBody:
			return nil, h.tooLarge()
		case errors.Is(err, io.EOF):
			pace.end()
			return body, nil
		case err != nil:
			return nil, h.broken(err)
		case len(body) == cap(body):
			body = grow(body, r.ContentLength)
		}
	}
}

// grow doubles the buffer, though not beyond what is announced.
func grow(body []byte, announced int64) []byte {
	size := 2 * cap(body)
	if announced >= 0 {
		size = min(size, int(announced)+1)
	}
	grown := make([]byte, len(body), max(size, cap(body)+1))
	copy(grown, body)
	return grown
}

func (h *handler) tooLarge() *fault.Error {
	return fault.New(fault.TooLarge, "the request's body is larger than %d bytes; store a reference to large data, or raise max_request_size", h.MaxBody)
}

// broken says why a body did not arrive.
func (h *handler) broken(err error) *fault.Error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if h.readTimeout > 0 && h.readTimeout < h.BodyGrace {
			return fault.New(fault.Timeout, "the request's body did not arrive within %v", h.readTimeout)
		}
		return fault.New(fault.Timeout, "the request's body arrived too slowly: %d bytes a second are expected after %v", h.MinBodyRate, h.BodyGrace)
	}
	return fault.Wrap(fault.Invalid, err, "the request's body ended before it was complete")
}

// drain is how long a client may go on sending a body that nobody reads; the
// server takes that much so that the client gets to see its answer.
const drain = 2 * time.Second

// leave gives up what is left of a request's body, and the connection with it.
func leave(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	if r.ProtoMajor == 1 { // over HTTP/2 only the stream is given up
		w.Header()["Connection"] = []string{"close"}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drain))
}

// pace keeps a body's read deadline: whoever has sent n bytes has the grace
// plus n/rate seconds, counted from the start, and never more than the most.
type pace struct {
	control *http.ResponseController
	start   time.Time
	grace   time.Duration
	rate    int64
	most    time.Duration // 0 is no bound
	missing bool          // the connection has no deadlines, as in tests of the handler alone
}

func (p *pace) expect(n int64) {
	if p.missing {
		return
	}
	allowed := p.grace + time.Duration(float64(n)/float64(p.rate)*float64(time.Second))
	if p.most > 0 {
		allowed = min(allowed, p.most)
	}
	p.missing = p.control.SetReadDeadline(p.start.Add(allowed)) != nil
}

// end lifts the deadline, which would otherwise count as the client's leaving.
func (p *pace) end() {
	if !p.missing {
		_ = p.control.SetReadDeadline(time.Time{})
	}
}
