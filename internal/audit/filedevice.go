package audit

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
)

// FileDevice writes entries to a file in the format of Vault's audit device
// of type "file": one JSON object a line, with type request or response.
// Accessors are hashed. Values and token ids, which Vault hashes, are not
// there at all, because entries do not have them.
type FileDevice struct {
	options FileOptions

	mu   sync.Mutex
	file *os.File // nil until the next write opens it
}

// FileOptions are the options of Vault's file device that have a meaning
// here.
type FileOptions struct {
	Path         string      // where to write; "stdout" and "discard" are taken as Vault takes them
	Mode         os.FileMode // of a new file; 0600
	Prefix       string      // written before every line
	Salt         string      // key of the hashes; never empty with HMACAccessor
	HMACAccessor bool        // hash the accessors of tokens
}

// ParseFileOptions reads the options map of Vault's "sys/audit/:path" for a
// device of type "file". What is unknown, or cannot be done without putting
// secrets into a file, is a fault of kind Invalid.
func ParseFileOptions(options map[string]string, salt string) (FileOptions, error) {
	o := FileOptions{Mode: 0o600, HMACAccessor: true, Salt: salt}
	for name, value := range options {
		var err error
		switch name {
		case "file_path", "path":
			o.Path = value
		case "prefix":
			o.Prefix = value
		case "mode":
			o.Mode, err = parseMode(value)
		case "hmac_accessor":
			o.HMACAccessor, err = strconv.ParseBool(value)
		case "log_raw":
			err = refuseRaw(value)
		case "elide_list_responses":
			_, err = strconv.ParseBool(value) // answers are never written
		case "format":
			if value != "json" {
				err = fmt.Errorf("the only format is json")
			}
		default:
			err = fmt.Errorf("the option is unknown")
		}
		if err != nil {
			return o, fault.New(fault.Invalid, "audit device option %s=%q: %v", name, value, err)
		}
	}
	switch {
	case o.Path == "":
		return o, fault.New(fault.Invalid, "audit device: file_path is required")
	case strings.EqualFold(o.Path, "stdout"), strings.EqualFold(o.Path, "discard"):
		o.Path = strings.ToLower(o.Path)
	case !filepath.IsAbs(o.Path):
		return o, fault.New(fault.Invalid, "audit device option file_path=%q: the path must be absolute", o.Path)
	}
	return o, nil
}

// parseMode reads octal permissions. 0 keeps those of an existing file.
// Nothing may be made executable: the content comes from clients.
func parseMode(value string) (os.FileMode, error) {
	n, err := strconv.ParseUint(value, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("the mode must be octal permissions such as 0600")
	}
	return os.FileMode(n) &^ 0o111, nil
}

func refuseRaw(value string) error {
	raw, err := strconv.ParseBool(value)
	if err == nil && raw {
		return fmt.Errorf("values are never written to an audit device; leave the option out")
	}
	return err
}

// NewFileDevice opens the device's file, so that a path that cannot be
// written is refused when the device is enabled: a fault of kind Invalid.
func NewFileDevice(o FileOptions) (*FileDevice, error) {
	if o.HMACAccessor && o.Salt == "" {
		return nil, fault.New(fault.Internal, "an audit device needs a salt for its hashes")
	}
	d := &FileDevice{options: o}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.open(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "audit device: the file %s cannot be written", o.Path)
	}
	return d, nil
}

func (d *FileDevice) open() error {
	if d.options.Path == "stdout" || d.options.Path == "discard" || d.file != nil {
		return nil
	}
	mode := d.options.Mode
	if mode == 0 {
		mode = 0o600
	}
	f, err := os.OpenFile(d.options.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, mode)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && d.options.Mode != 0 {
		err = f.Chmod(d.options.Mode)
	}
	if err != nil {
		f.Close()
		return err
	}
	d.file = f
	return nil
}

// Write appends lines. A file that was moved away, as log rotation does, is
// opened anew under its name.
func (d *FileDevice) Write(lines []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.options.Path {
	case "discard":
		return nil
	case "stdout":
		_, err := os.Stdout.Write(lines)
		return err
	}
	if d.file != nil && !d.stillThere() {
		d.file.Close()
		d.file = nil
	}
	if err := d.open(); err != nil {
		return err
	}
	n, err := d.file.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	return err
}

func (d *FileDevice) stillThere() bool {
	mine, err := d.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(d.options.Path)
	return err == nil && os.SameFile(mine, there)
}

// Reload opens the file anew at the next write, for log rotation by signal.
func (d *FileDevice) Reload() error { return d.Close() }

// Close closes the file.
func (d *FileDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	err := d.file.Close()
	d.file = nil
	return err
}

// Hash hashes input with the device's salt, as "sys/audit-hash/:path" answers.
func (d *FileDevice) Hash(input string) string { return Hash(d.options.Salt, input) }

// Encode appends the entry in Vault's format. An intent is a request, an
// outcome a response; events have no counterpart and are left out.
func (d *FileDevice) Encode(b []byte, e *Entry) []byte {
	if e.Type == Event {
		return b
	}
	kind := "response"
	if e.Type == Intent {
		kind = "request"
	}
	b = append(b, d.options.Prefix...)
	b = append(b, `{"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","type":"`...)
	b = append(b, kind...)
	b = append(b, '"')
	b = d.appendAuth(b, e)
	b = d.appendVaultRequest(b, e)
	if e.Type == Outcome {
		b, start := openObject(b, "response")
		b = appendText(b, "mount_point", e.Request.MountPoint)
		b = appendText(b, "mount_type", e.Request.MountType)
		b = appendText(b, "mount_accessor", e.Request.MountAccessor)
		return d.appendLast(closeObject(b, start), e)
	}
	return d.appendLast(b, e)
}

func (d *FileDevice) appendLast(b []byte, e *Entry) []byte {
	b = appendText(b, "error", e.Error)
	return append(b, "}\n"...)
}

func (d *FileDevice) appendAuth(b []byte, e *Entry) []byte {
	p := &e.Principal
	b, start := openObject(b, "auth")
	b = appendText(b, "accessor", d.accessor(p.Accessor))
	b = appendText(b, "display_name", p.DisplayName)
	b = appendTexts(b, "policies", slices.Concat(p.Policies, p.Identity))
	b = appendTexts(b, "token_policies", p.Policies)
	b = appendTexts(b, "identity_policies", p.Identity)
	if e.Decision != nil {
		b = append(b, `,"policy_results":{"allowed":`...)
		b = strconv.AppendBool(b, e.Decision.Allowed)
		if e.Decision.Allowed && e.Decision.Policy != "" {
			b = append(b, `,"granting_policies":[{"name":`...)
			b = appendString(b, e.Decision.Policy)
			b = append(b, `,"type":"acl"}]`...)
		}
		b = append(b, '}')
	}
	b = appendText(b, "entity_id", p.EntityID)
	b = appendText(b, "token_type", p.TokenType)
	if !p.Issued.IsZero() {
		b = appendText(b, "token_issue_time", p.Issued.UTC().Format(time.RFC3339))
	}
	return closeObject(b, start)
}

func (d *FileDevice) appendVaultRequest(b []byte, e *Entry) []byte {
	r := &e.Request
	b, start := openObject(b, "request")
	b = appendText(b, "id", r.ID)
	b = appendText(b, "operation", r.Operation)
	b = appendText(b, "mount_point", r.MountPoint)
	b = appendText(b, "mount_type", r.MountType)
	b = appendText(b, "mount_accessor", r.MountAccessor)
	b = appendText(b, "client_token_accessor", d.accessor(e.Principal.Accessor))
	b = append(b, `,"namespace":{"id":`...)
	if r.Namespace == "" {
		b = append(b, `"root"}`...)
	} else {
		b = appendString(b, r.Namespace)
		b = append(b, `,"path":`...)
		b = appendString(b, r.Namespace)
		b = append(b, '}')
	}
	b = appendText(b, "path", r.Path)
	b = appendText(b, "remote_address", r.RemoteAddress)
	b = appendNumber(b, "remote_port", int64(r.RemotePort))
	b = appendNumber(b, "wrap_ttl", r.WrapTTL)
	b = appendHeaders(b, r.Headers)
	return closeObject(b, start)
}

func (d *FileDevice) accessor(accessor string) string {
	if accessor == "" || !d.options.HMACAccessor {
		return accessor
	}
	return Hash(d.options.Salt, accessor)
}
