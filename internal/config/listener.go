package config

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/hcl/ast"
)

// settings is the listener's section.
func (l *Listener) settings() *section {
	keys := []key{
		{"http_read_timeout", duration(&l.ReadTimeout, 0)},
		{"http_read_header_timeout", duration(&l.ReadHeaderTimeout, time.Millisecond)},
		{"http_write_timeout", duration(&l.WriteTimeout, 0)},
		{"http_idle_timeout", duration(&l.IdleTimeout, time.Millisecond)},
		{"max_request_size", size(&l.MaxRequestSize, 1024)},
		{"max_request_duration", duration(&l.MaxRequestDuration, time.Millisecond)},
		{"require_request_header", flag(&l.RequireRequestHeader)},
		ignored("cluster_address", "the nodes of a cluster talk through their storage and need no address of their own"),
		ignored("disable_request_limiter", "overload is answered by quotas"),
		ignored("max_json_depth", "the depth of a request's JSON is bounded"),
		ignored("redact_addresses", "addresses are told to callers that may know them only"),
		ignored("redact_cluster_name", "it is told to callers that may know it only"),
		ignored("redact_version", "clients switch features on by the version"),
		ignored("chroot_namespace", "there are no namespaces behind this listener"),
	}
	s := &section{done: l.check}
	if l.Kind == "unix" {
		s.keys = append(keys,
			key{"address", text(&l.Address)},
			key{"socket_mode", mode(&l.SocketMode)},
			key{"socket_user", text(&l.SocketUser)},
			key{"socket_group", text(&l.SocketGroup)},
			ignored("tls_disable", "a unix socket has no TLS"),
		)
	} else {
		s.keys = append(append(keys, l.tlsKeys()...), l.forwardedKeys()...)
		s.keys = append(s.keys,
			key{"address", address(&l.Address)},
			refused("proxy_protocol_behavior", "the PROXY protocol is not spoken; let the proxy send X-Forwarded-For and set x_forwarded_for_authorized_addrs"),
			refused("proxy_protocol_authorized_addrs", "the PROXY protocol is not spoken; let the proxy send X-Forwarded-For and set x_forwarded_for_authorized_addrs"),
		)
	}
	s.blocks = []block{
		{name: "telemetry", open: func(string) (*section, error) {
			return &section{keys: []key{
				{"unauthenticated_metrics_access", flag(&l.UnauthenticatedStats)},
				ignored("disallow_metrics", "a policy decides who may read sys/metrics"),
			}}, nil
		}},
		{name: "profiling", open: func(string) (*section, error) {
			return nil, &notice{"ignored: profiles are not served without a token"}
		}},
		{name: "inflight_requests_logging", open: func(string) (*section, error) {
			return nil, &notice{"ignored: requests under way are not listed without a token"}
		}},
	}
	s.keys = append(s.keys, key{"custom_response_headers", l.setHeaders})
	return s
}

func (l *Listener) tlsKeys() []key {
	return []key{
		{"tls_disable", func(v value) error {
			var off bool
			err := flag(&off)(v)
			if off {
				l.TLS.Mode = TLSOff
			}
			return err
		}},
		{"tls_cert_file", file(&l.TLS.Cert)},
		{"tls_key_file", file(&l.TLS.Key)},
		{"tls_client_ca_file", file(&l.TLS.ClientCA)},
		{"tls_require_and_verify_client_cert", func(v value) error {
			var on bool
			err := flag(&on)(v)
			if on {
				l.TLS.Auth = tls.RequireAndVerifyClientCert
			}
			return err
		}},
		{"tls_disable_client_certs", func(v value) error {
			var off bool
			err := flag(&off)(v)
			if off {
				l.TLS.Auth = noClientCerts
			}
			return err
		}},
		{"tls_min_version", version(&l.TLS.Min)},
		{"tls_max_version", version(&l.TLS.Max)},
		{"tls_cipher_suites", ciphers(&l.TLS.Ciphers)},
		{"tls_names", func(v value) (err error) { l.TLS.Names, err = v.list(); return err }},
		{"tls_directory", directory(&l.TLS.Dir)},
		ignored("tls_prefer_server_cipher_suites", "the TLS library chooses"),
	}
}

// noClientCerts stands for tls_disable_client_certs until the block is checked.
const noClientCerts tls.ClientAuthType = -1

func (l *Listener) forwardedKeys() []key {
	// Vault's defaults; they count once there are authorized addresses.
	f := &Forwarded{RejectNotPresent: true, RejectNotAuthorized: true}
	return []key{
		{"x_forwarded_for_authorized_addrs", func(v value) error {
			list, err := v.list()
			if err != nil {
				return err
			}
			for _, text := range list {
				prefix, err := parsePrefix(text)
				if err != nil {
					return err
				}
				f.Authorized = append(f.Authorized, prefix)
			}
			if len(f.Authorized) > 0 {
				l.Forwarded = f
			}
			return nil
		}},
		{"x_forwarded_for_hop_skips", count(&f.HopSkips, 0, 100)},
		{"x_forwarded_for_reject_not_present", flag(&f.RejectNotPresent)},
		{"x_forwarded_for_reject_not_authorized", flag(&f.RejectNotAuthorized)},
		ignored("x_forwarded_for_client_cert_header", "client certificates are taken from the connection only"),
		ignored("x_forwarded_for_client_cert_header_decoders", "client certificates are taken from the connection only"),
	}
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%q is neither an IP address nor a network; write for example 10.0.0.0/8", text)
	}
	return prefix.Masked(), nil
}

// check completes and checks the TLS settings.
func (l *Listener) check() error {
	if l.Kind == "unix" {
		if l.Address == "" {
			return fmt.Errorf("address is missing; give the path of the socket")
		}
		return nil
	}
	t := &l.TLS
	disabled := t.Auth == noClientCerts
	if disabled {
		t.Auth = tls.NoClientCert
	}
	switch {
	case t.Max != 0 && t.Max < t.Min:
		return fmt.Errorf("tls_max_version is below tls_min_version")
	case t.Mode == TLSOff:
		t.Auth = tls.NoClientCert
		return nil
	case t.Cert != "" && t.Key == "":
		return fmt.Errorf("tls_cert_file is given without tls_key_file")
	case t.Cert == "" && t.Key != "":
		return fmt.Errorf("tls_key_file is given without tls_cert_file")
	case t.Auth == tls.RequireAndVerifyClientCert && t.ClientCA == "":
		return fmt.Errorf("tls_require_and_verify_client_cert needs tls_client_ca_file")
	case disabled && t.ClientCA != "":
		return fmt.Errorf("tls_disable_client_certs and tls_client_ca_file contradict each other")
	case t.ClientCA != "" && t.Cert == "":
		return fmt.Errorf("tls_client_ca_file needs tls_cert_file and tls_key_file")
	}
	if t.Cert != "" {
		t.Mode = TLSFiles
	}
	if t.ClientCA != "" && t.Auth == tls.RequestClientCert {
		t.Auth = tls.VerifyClientCertIfGiven
	}
	return nil
}

func version(to *uint16) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		switch strings.ToLower(text) {
		case "tls12":
			*to = tls.VersionTLS12
		case "tls13":
			*to = tls.VersionTLS13
		case "tls10", "tls11":
			return fmt.Errorf("%q is too old; accepted are tls12 and tls13", text)
		default:
			return fmt.Errorf("%q is not known; accepted are tls12 and tls13", text)
		}
		return nil
	}
}

func ciphers(to *[]uint16) func(value) error {
	return func(v value) error {
		names, err := v.list()
		if err != nil {
			return err
		}
		known := map[string]uint16{}
		var all []string
		for _, suite := range tls.CipherSuites() {
			known[suite.Name] = suite.ID
			all = append(all, suite.Name)
		}
		for _, name := range names {
			id, ok := known[strings.ToUpper(name)]
			if !ok {
				return fmt.Errorf("%q is no safe cipher suite; %s", name, suggest(name, all))
			}
			*to = append(*to, id)
		}
		return nil
	}
}

func mode(to *fs.FileMode) func(value) error {
	return func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(text, 8, 32)
		if err != nil || n > uint64(os.ModePerm) {
			return fmt.Errorf("%q is no file mode; write for example \"0660\"", text)
		}
		*to = fs.FileMode(n)
		return nil
	}
}

// setHeaders reads custom_response_headers: an object of objects of lists, which
// HCL and JSON may also write as blocks.
func (l *Listener) setHeaders(v value) error {
	if l.ResponseHeaders == nil {
		l.ResponseHeaders = map[string]map[string][]string{}
	}
	return eachItem(v.node, func(status string, node ast.Node) error {
		if !isStatus(status) {
			return fmt.Errorf("%q is neither \"default\" nor a status (\"404\") nor a class of them (\"4xx\")", status)
		}
		headers := map[string][]string{}
		l.ResponseHeaders[status] = headers
		return eachItem(node, func(name string, node ast.Node) error {
			if strings.HasPrefix(strings.ToLower(name), "x-vault-") {
				return fmt.Errorf("%s: %q cannot be set: X-Vault- headers are the protocol's", status, name)
			}
			list, ok := node.(*ast.ListType)
			if !ok {
				list = &ast.ListType{List: []ast.Node{node}}
			}
			for _, each := range list.List {
				text, err := value{node: each}.text()
				if err != nil || strings.ContainsAny(text, "\r\n") {
					return fmt.Errorf("%s: %s must be a list of strings without line ends", status, name)
				}
				headers[name] = append(headers[name], text)
			}
			return nil
		})
	})
}

func isStatus(text string) bool {
	if text == "default" {
		return true
	}
	if len(text) != 3 || text[0] < '1' || text[0] > '5' {
		return false
	}
	_, err := strconv.Atoi(text)
	return err == nil || text[1:] == "xx"
}

// eachItem calls do for the items of an object, or of a list of objects.
func eachItem(node ast.Node, do func(name string, node ast.Node) error) error {
	switch node := node.(type) {
	case *ast.ListType:
		for _, each := range node.List {
			if err := eachItem(each, do); err != nil {
				return err
			}
		}
		return nil
	case *ast.ObjectType:
		for _, item := range node.List.Items {
			if len(item.Keys) == 0 {
				continue
			}
			inner := item.Val
			if len(item.Keys) > 1 { // as JSON's parser joins them
				inner = &ast.ObjectType{List: &ast.ObjectList{Items: []*ast.ObjectItem{{Keys: item.Keys[1:], Val: item.Val}}}}
			}
			if err := do(keyText(item.Keys[0]), inner); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("it must be a block of blocks; write \"default\" = { \"Header-Name\" = [\"value\"] }")
}
