package providertest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// chromium is a browser that is told what to do over two pipes (Chrome DevTools
// Protocol).
type chromium struct {
	to      *os.File
	from    *bufio.Reader
	last    int
	session string
}

// Chromium opens the address in a real browser without a window, logs somebody in
// on the provider's page, and returns the text of the page that it ends up on: one
// whose address begins with home. It wants Debian's chromium.
func (p *Provider) Chromium(t testing.TB, address, user, password, home string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, stop, err := p.chromium(ctx)
	if err != nil {
		return "", err
	}
	defer stop()
	if err := b.call("Page.navigate", map[string]any{"url": address}, nil); err != nil {
		return "", err
	}
	name, err := json.Marshal([]string{user, password})
	if err != nil {
		return "", err
	}
	if err := b.until(`document.getElementById("password") != null`); err != nil {
		return "", err
	}
	fill := `[document.getElementById("username").value, document.getElementById("password").value] = ` + string(name) + `; document.querySelector("button").click(); true`
	if err := b.evaluate(fill, nil); err != nil {
		return "", err
	}
	if err := b.until(fmt.Sprintf(`location.href.startsWith(%q) && document.readyState == "complete"`, home)); err != nil {
		return "", err
	}
	var text string
	err = b.evaluate("document.body.innerText", &text)
	return text, err
}

// chromium starts the browser with one empty page.
func (p *Provider) chromium(ctx context.Context) (*chromium, func(), error) {
	block, _ := pem.Decode([]byte(p.CA))
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	pin := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	toRead, to, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	from, fromWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		return nil, nil, err
	}
	// A sandbox needs namespaces that a test's machine may not give; the pages are our
	// own.
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--no-proxy-server", "--user-data-dir="+dir, "--remote-debugging-pipe",
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(pin[:]), "about:blank")
	cmd.ExtraFiles = []*os.File{toRead, fromWrite}
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Start()
	_, _ = toRead.Close(), fromWrite.Close()
	stop := func() {
		_ = to.Close() // which ends it
		_ = cmd.Wait()
		_ = from.Close()
		_ = os.RemoveAll(dir)
	}
	if err != nil {
		_, _ = to.Close(), from.Close()
		return nil, nil, fmt.Errorf("chromium (scripts/test-deps installs it): %w", err)
	}
	b := &chromium{to: to, from: bufio.NewReader(from)}
	var page struct{ TargetID, SessionID string }
	if err = b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &page); err == nil {
		err = b.call("Target.attachToTarget", map[string]any{"targetId": page.TargetID, "flatten": true}, &page)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	b.session = page.SessionID
	return b, stop, nil
}

// call makes the browser do something and decodes what comes of it.
func (b *chromium) call(method string, params map[string]any, result any) error {
	b.last++
	request := map[string]any{"id": b.last, "method": method, "params": params}
	if b.session != "" {
		request["sessionId"] = b.session
	}
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		return err
	}
	for {
		text, err := b.from.ReadBytes(0)
		if err != nil {
			return fmt.Errorf("chromium ended: %w", err)
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil {
			return err
		}
		switch {
		case answer.ID != b.last: // an event
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", method, answer.Error.Message)
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Result, result)
		}
	}
}

// evaluate runs an expression in the page.
func (b *chromium) evaluate(expression string, into any) error {
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	if err := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &out); err != nil {
		return err
	}
	if out.ExceptionDetails != nil {
		return fmt.Errorf("%s: %s", expression, out.ExceptionDetails.Text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out.Result.Value, into)
}

// until waits until an expression is true in whatever page is shown.
func (b *chromium) until(expression string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var ok bool
		err := b.evaluate(expression, &ok)
		if ok {
			return nil
		}
		// While a page gives way to the next there is nothing to ask.
		if time.Now().After(deadline) || err != nil && strings.Contains(err.Error(), "ended") {
			var page string
			_ = b.evaluate("location.href + ' ' + document.documentElement.innerText", &page)
			return fmt.Errorf("the page is not what is waited for: %v %s", err, page)
		}
	}
}
