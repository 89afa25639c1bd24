package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/gateway"
)

// streamPatience is how long a client may take no byte of a streamed body.
const streamPatience = time.Minute

// stream sends an answer whose body is made while it is sent, for as long as the
// client keeps taking it. When it fails after the first byte the connection, or
// the stream of HTTP/2, is broken off.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, id string, a *gateway.Answer) {
	body := &streamed{h: h, w: w, r: r, answer: a, control: http.NewResponseController(w)}
	err := h.runStream(r.Context(), id, body)
	switch {
	case err != nil && body.begun:
		panic(http.ErrAbortHandler)
	case err != nil:
		refused := refusal(fault.From(err))
		h.write(w, r, &refused)
	case !body.begun:
		h.write(w, r, a)
	}
}

// runStream lets the body be written; a panic in that is an error.
func (h *handler) runStream(ctx context.Context, id string, body *streamed) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = h.panicked(id, p)
		}
	}()
	return body.answer.Stream(ctx, body)
}

// streamed is the body of an answer on its way.
type streamed struct {
	h       *handler
	w       http.ResponseWriter
	r       *http.Request
	answer  *gateway.Answer
	control *http.ResponseController
	begun   bool
}

// Write implements io.Writer. It waits for a slow client, which slows down its
// own body and nothing else. A live body says by writing nothing that it goes on.
func (s *streamed) Write(b []byte) (int, error) {
	// In the place of the deadline for whole answers.
	if err := s.control.SetWriteDeadline(time.Now().Add(streamPatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	if !s.begun {
		s.begun = true
		s.h.write(s.w, s.r, s.answer)
	}
	n, err := s.w.Write(b)
	if err == nil && s.answer.Live {
		err = s.control.Flush()
	}
	return n, err
}
