package wire

import (
	"errors"
	"net/netip"
	"slices"
)

// Accepts reports whether an address lies in one of the networks, or there are none.
func Accepts(networks []string, from netip.Addr) (bool, error) {
	bounds, err := ParseNetworks(networks)
	if err != nil || len(bounds) == 0 {
		return err == nil, err
	}
	return slices.ContainsFunc(bounds, func(b netip.Prefix) bool { return b.Contains(from.Unmap()) }), nil
}

// ParseNetworks reads networks as clients write them: a prefix such as
// 10.0.0.0/8, or an address, which is a network of its own. Host bits are
// cleared.
func ParseNetworks(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range list {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			addr = addr.Unmap()
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, errors.New("it is not a network; write for example 10.0.0.0/8 or 192.0.2.1")
		}
		out = append(out, prefix.Masked())
	}
	return out, nil
}
