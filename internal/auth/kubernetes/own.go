package kubernetes

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// own are the files that a cluster puts into this server's own pod, where it runs
// in one. They are read again after a minute: a projected token is replaced before
// it ends.
type own struct {
	folder string
	now    func() time.Time

	mu    sync.Mutex
	files map[string]file
}

type file struct {
	text string
	read time.Time
}

const (
	ownToken = "token"
	ownCA    = "ca.crt"

	readAgain  = time.Minute
	maxOwnFile = 1 << 20 // bytes
)

// read returns a file's text, "" when there is none.
func (o *own) read(name string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f, ok := o.files[name]; ok && o.now().Sub(f.read) < readAgain {
		return f.text
	}
	var text []byte
	if f, err := os.Open(filepath.Join(o.folder, name)); err == nil {
		text, _ = io.ReadAll(io.LimitReader(f, maxOwnFile))
		_ = f.Close()
	}
	if o.files == nil {
		o.files = map[string]file{}
	}
	o.files[name] = file{strings.TrimSpace(string(text)), o.now()}
	return o.files[name].text
}
