package app_test

import (
	"fmt"
	"testing"
	"time"
)

// TestRestartWithManySecrets kills a server with 10,000 secrets and wants the
// first of them answered within 2 seconds of the next start.
func TestRestartWithManySecrets(t *testing.T) {
	const secrets, writers, within = 10_000, 64, 2 * time.Second
	p := newProcess(t, "")
	p.start(t)
	p.initialize(t)
	together(writers, func(w int) {
		for n := w; n < secrets; n += writers {
			path, body := fmt.Sprintf("secret/data/many/%d/%d", n%100, n), fmt.Sprintf(`{"data":{"n":"value %d"}}`, n)
			if a, err := p.Try("POST", path, p.Root, body); err != nil || a.Status != 200 {
				t.Errorf("write %s: %v %v", path, a, err)
				return
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	p.kill(t)
	begun := time.Now()
	p.start(t)
	first := p.Must(t, 200, "GET", fmt.Sprintf("secret/data/many/%d/%d", (secrets-1)%100, secrets-1), "")
	took := time.Since(begun)
	t.Logf("the first answer came after %v", took)
	if took > within {
		t.Errorf("the first answer came after %v, want at most %v:\n%s", took, within, p.out)
	}
	var got struct{ Data map[string]string }
	if first.Into(t, &got); got.Data["n"] != fmt.Sprintf("value %d", secrets-1) {
		t.Errorf("it is %v", got)
	}
	together(writers, func(w int) {
		for n := w; n < secrets; n += writers {
			a, err := p.Try("GET", fmt.Sprintf("secret/data/many/%d/%d", n%100, n), p.Root, "")
			if err != nil || a.Status != 200 {
				t.Errorf("secret %d was acknowledged: %v %v", n, a, err)
				return
			}
		}
	})
}
