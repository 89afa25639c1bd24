package barrier_test

import (
	"fmt"
	"sync"
	"testing"
)

// The count says when a key has sealed enough to be rotated, so that it must
// be what was sealed, whoever writes at the same time.
func TestEncryptionsAreCounted(t *testing.T) {
	b, _, _ := opened(t)
	count := func() uint64 {
		st, err := b.KeyStatus(t.Context(), "core")
		must(t, err)
		return st.Encryptions
	}
	put(t, b, "core/first", "v")
	before := count()
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 50 {
				put(t, b, fmt.Sprintf("core/%d/%d", w, i), "v")
			}
		})
	}
	writers.Wait()
	// A transaction that conflicts runs again and seals again.
	if n := count() - before; n < 200 || n > 800 {
		t.Errorf("200 writes are counted as %d", n)
	}
}
