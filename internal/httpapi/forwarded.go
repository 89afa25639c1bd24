package httpapi

import (
	"net/netip"
	"strings"

	"github.com/cofferhq/coffer/internal/fault"
)

// Forwarded says how X-Forwarded-For is read, with Vault's meaning of each
// setting (x_forwarded_for_* of a listener).
type Forwarded struct {
	Authorized          []netip.Prefix // the proxies whose header is believed
	HopSkips            int            // how many addresses to skip from the right
	RejectNotPresent    bool           // refuse requests without the header
	RejectNotAuthorized bool           // refuse requests with the header from anyone else
}

// client returns the address of the client behind the peer. bad is set when the
// peer's address could not be read.
func (f *Forwarded) client(peer netip.AddrPort, bad error, headers []string) (netip.AddrPort, *fault.Error) {
	if len(headers) == 0 {
		if f.RejectNotPresent {
			return peer, fault.New(fault.Invalid, "missing x-forwarded-for header and configured to reject when not present")
		}
		return peer, nil
	}
	if bad != nil || !f.authorized(peer.Addr()) {
		if f.RejectNotAuthorized {
			return peer, fault.New(fault.Invalid, "client address not authorized for x-forwarded-for and configured to reject connection")
		}
		return peer, nil
	}
	chain := strings.Split(strings.Join(headers, ","), ",")
	i := len(chain) - 1 - f.HopSkips
	if i < 0 {
		return peer, fault.New(fault.Invalid, "malformed x-forwarded-for configuration or request, hops to skip (%d) would skip before earliest chain link (chain length %d)", f.HopSkips, len(chain))
	}
	text := strings.TrimSpace(chain[i])
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), peer.Port()), nil
	}
	if addr, err := netip.ParseAddrPort(text); err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
	}
	return peer, fault.New(fault.Invalid, "the x-forwarded-for header holds what is no IP address")
}

func (f *Forwarded) authorized(addr netip.Addr) bool {
	for _, p := range f.Authorized {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
