package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// target is a server under load.
type target struct {
	url   string // without a trailing slash
	token string
	http  *http.Client
	pid   int // of the server's process, 0 where its processor time is of no interest
}

// processorTime is what a process has used so far.
func processorTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// Fields 14 and 15, in ticks of 10 ms; the second field may hold spaces.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(string(fields[11]), 10, 64)
	system, _ := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func newTarget(url, token, caFile string, clients int) (*target, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &target{url: url, token: token, http: &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: clients, MaxIdleConns: clients,
		},
	}}, nil
}

// do sends one request and returns the answer's body.
func (t *target) do(method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequest(method, t.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", t.token)
	resp, err := t.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, err
}

// result is what one side did in its turns.
type result struct {
	latencies []time.Duration
	elapsed   time.Duration
	processor time.Duration // of the server
}

// perRequest is the server's processor time for one request.
func (r *result) perRequest() time.Duration {
	return (r.processor / time.Duration(max(1, len(r.latencies)))).Round(100 * time.Nanosecond)
}

func (r *result) perSecond() float64 { return float64(len(r.latencies)) / r.elapsed.Seconds() }

// at returns the latency that a share q of the requests stayed under.
func (r *result) at(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	slices.Sort(r.latencies)
	return r.latencies[min(len(r.latencies)-1, int(q*float64(len(r.latencies))))]
}

// load runs op from so many clients for a time and adds what they did to r.
func (r *result) load(t *target, clients int, d time.Duration, op func(client, n int) error) error {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		first error
	)
	used := processorTime(t.pid)
	begun := time.Now()
	for c := range clients {
		wg.Go(func() {
			var own []time.Duration
			var err error
			for n := 0; time.Since(begun) < d && err == nil; n++ {
				t := time.Now()
				err = op(c, n)
				own = append(own, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			r.latencies = append(r.latencies, own...)
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	r.elapsed += time.Since(begun)
	r.processor += processorTime(t.pid) - used
	return first
}
