package app_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
	"github.com/cofferhq/coffer/internal/audit"
)

// ownDisk is what the shell of a smallDisk runs: it mounts a small disk that only
// it and its child see, runs the server on it, and does what it is told.
const ownDisk = `
set -e
mount -t tmpfs -o size=16m,mode=0700 tmpfs "$DISK"
mkdir "$DISK/audit"
"$COFFER" server -config="$CONFIG" &
while read -r word; do
	case $word in
	fill) dd if=/dev/zero of="$DISK/filler" bs=64k 2>/dev/null || true ;;
	free) rm "$DISK/filler" ;;
	copy) rm -rf "$COPY"; cp -r "$DISK/audit" "$COPY" ;;
	esac
	echo "done: $word" >&3
done
`

// smallDisk is the disk under a server's audit log.
type smallDisk struct {
	orders io.Writer
	says   *bufio.Reader
	copied string // where copy puts the log
}

// tell has the shell do something.
func (d *smallDisk) tell(t *testing.T, word string) {
	t.Helper()
	if _, err := fmt.Fprintln(d.orders, word); err != nil {
		t.Fatal(err)
	}
	if said, err := d.says.ReadString('\n'); err != nil || said != "done: "+word+"\n" {
		t.Fatalf("%s: the shell says %q: %v", word, said, err)
	}
}

// startOnSmallDisk starts a server whose audit log lies on a disk of 16 MiB.
func startOnSmallDisk(t *testing.T) (*process, *smallDisk) {
	t.Helper()
	p := newProcess(t, "")
	disk := filepath.Join(p.dir, "disk")
	p.configure(t, tcp+fmt.Sprintf("audit {\n  path = %q\n  reserve = \"1MiB\"\n}\n", filepath.Join(disk, "audit")))
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	orders, write := pipe(t)
	read, says := pipe(t)
	d := &smallDisk{orders: write, says: bufio.NewReader(read), copied: filepath.Join(p.dir, "copied")}
	p.within = func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", ownDisk}
		cmd.Env = append(cmd.Env, "COFFER="+os.Args[0], "CONFIG="+p.config(), "DISK="+disk, "COPY="+d.copied)
		cmd.Stdin, cmd.ExtraFiles = orders, []*os.File{says}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, // the server ends with the shell
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	t.Cleanup(func() { write.Close() })
	p.start(t)
	return p, d
}

// pipe returns both ends of a pipe, which end with the test.
func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	return read, write
}

// TestTheAuditDiskIsFull fills the disk under the audit log. Whatever asks for
// something is refused, and nothing changes, until there is space; nobody has to
// do anything else, and the log has no gap.
func TestTheAuditDiskIsFull(t *testing.T) {
	p, disk := startOnSmallDisk(t)
	p.initialize(t)
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"n":"before"}}`)
	stranger := p.Token(t, map[string]string{"nothing": `path "secret/data/nothing" { capabilities = ["read"] }`})

	disk.tell(t, "fill")
	written := 0
	var refused *apptest.Answer
	for n := range 20000 { // what was reserved ahead is used up first
		a := p.Do(t, "POST", "secret/data/app", p.Root, fmt.Sprintf(`{"data":{"n":"%d"}}`, n))
		if a.Status != 200 {
			refused = a
			break
		}
		written = n
	}
	if refused == nil || refused.Status != 503 || !strings.Contains(string(refused.Body), "audit log cannot be written: the disk is full") {
		t.Fatalf("after %d writes: %+v", written, refused)
	}
	for range 20 {
		for _, r := range [][3]string{
			{"POST", "secret/data/app", `{"data":{"n":"refused"}}`}, {"POST", "secret/data/other", `{"data":{"n":"refused"}}`},
			{"GET", "secret/data/app", ""}, {"DELETE", "secret/data/app", ""}, {"POST", "sys/mounts/more", `{"type":"kv"}`},
			{"POST", "auth/token/create", `{}`}, {"POST", "sys/policies/acl/more", `{"policy":""}`},
		} {
			if a := p.Do(t, r[0], r[1], p.Root, r[2]); a.Status != 503 || a.Data != nil || a.Auth != nil {
				t.Fatalf("%s %s with a full audit disk is answered %d %s", r[0], r[1], a.Status, a.Body)
			}
		}
	}
	// A denial still finds room, in the reserve.
	denied := p.Do(t, "GET", "secret/data/app", stranger, "")
	if denied.Status != 403 {
		t.Errorf("a denial with a full audit disk is answered %d %s", denied.Status, denied.Body)
	}
	if a := p.Do(t, "GET", "sys/health", "", ""); a.Status != 503 || !strings.Contains(string(a.Body), "audit") {
		t.Errorf("with a full audit disk the health is %d %s", a.Status, a.Body)
	}
	if !strings.Contains(p.out.String(), "the disk is full") {
		t.Errorf("the log does not say it:\n%s", p.out)
	}

	disk.tell(t, "free")
	var after *apptest.Answer
	eventually(t, "the server answers again", func() bool {
		after = p.Do(t, "GET", "secret/data/app", p.Root, "")
		return after.Status == 200
	})
	if want := fmt.Sprintf(`"n":"%d"`, written); !strings.Contains(string(after.Body), want) {
		t.Errorf("after the full disk the secret is %s, want %s", after.Body, want)
	}
	for _, path := range []string{"secret/data/other", "sys/mounts/more", "sys/policies/acl/more"} {
		if a := p.Do(t, "GET", path, p.Root, ""); a.Status == 200 {
			t.Errorf("%s was refused, and is there: %s", path, a.Body)
		}
	}
	if a := p.Do(t, "GET", "sys/health", "", ""); a.Status != 200 {
		t.Errorf("with space again the health is %d %s", a.Status, a.Body)
	}
	p.Must(t, 200, "POST", "secret/data/app", `{"data":{"n":"after"}}`)
	key := publicKey(t, &p.Client)
	disk.tell(t, "copy")
	report, err := audit.Verify(disk.copied, audit.VerifyOptions{PublicKeys: []string{key}})
	if err != nil || !report.Intact() {
		t.Fatalf("the log does not verify: %v %v", err, report.Problems)
	}
	found := map[string]bool{}
	for _, e := range entries(t, disk.copied) {
		if e.Type == audit.Outcome {
			found[e.Request.ID] = true
		}
	}
	for what, a := range map[string]*apptest.Answer{"the denial": denied, "the first answer with space": after} {
		if !found[a.Header.Get("X-Coffer-Request-Id")] {
			t.Errorf("%s is not in the log", what)
		}
	}
}
