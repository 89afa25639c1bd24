package httpapi

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/cofferhq/coffer/internal/gateway"
)

var secret = bytes.Repeat([]byte("s"), 1024)

// BenchmarkTLS compares the handler with a bare net/http server over TLS, both
// answering the same 1 KiB to 32 clients with kept connections. Their ratio is
// what HTTP itself leaves of the speed target.
func BenchmarkTLS(b *testing.B) {
	config, pool := testTLS(b)
	run := func(b *testing.B, address string) {
		c := client(b, pool, false)
		b.SetParallelism(16) // times GOMAXPROCS
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r, err := http.NewRequest(http.MethodGet, "https://"+address+"/v1/secret/data/app", nil)
				if err != nil {
					b.Error(err)
					return
				}
				r.Header["X-Vault-Token"] = []string{"hvs.CAESIJ1234567890"}
				resp, err := c.Do(r)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	}
	b.Run("bare", func(b *testing.B) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(secret)
		}))
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s.Listener.Close()
		s.Listener, s.TLS = l, config.Clone()
		s.StartTLS()
		defer s.Close()
		run(b, l.Addr().String())
	})
	b.Run("coffer", func(b *testing.B) {
		serve := func(context.Context, *gateway.Request) gateway.Answer {
			return gateway.Answer{Status: 200, Body: secret}
		}
		address, _ := start(b, Listener{Options: Options{Serve: serve}, TLS: config})
		run(b, address)
	})
}

// BenchmarkHandler is the handler's own cost and allocations, without a network.
func BenchmarkHandler(b *testing.B) {
	var served atomic.Int64
	h := New(Options{Log: discard, Serve: func(context.Context, *gateway.Request) gateway.Answer {
		served.Add(1)
		return gateway.Answer{Status: 200, Body: secret}
	}})
	r := httptest.NewRequest(http.MethodGet, "/v1/secret/data/app", nil)
	r.Header["X-Vault-Token"] = []string{"hvs.CAESIJ1234567890"}
	w := &nowhere{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

type nowhere struct{ header http.Header }

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) WriteHeader(int)             {}
func (w *nowhere) Write(b []byte) (int, error) { return len(b), nil }
