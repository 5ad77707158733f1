package netup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What is asked of the kernel by rtnetlink(7). Messages, attributes and sockets are those
// of the library's lower half; its upper half also knows what is never asked here, such as
// tunnels, bridges and traffic control, and all of that would be linked.

// link is a network interface.
type link struct {
	index, master int
	name          string
	mac           net.HardwareAddr
	flags         uint32 // IFF_UP, IFF_LOWER_UP, …
}

// linkUpdate is what changed about one.
type linkUpdate struct {
	link
	gone bool
}

// address is one of an interface.
type address struct {
	index int
	net   netip.Prefix
}

// route is one of the main table.
type route struct {
	index    int
	to       netip.Prefix
	via      netip.Addr // invalid: none; it need not be in a subnet of the interface
	priority int
}

// ask sends a request and returns the answers' payloads.
func ask(kind, flags int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	r := nl.NewNetlinkRequest(kind, flags)
	r.Data = parts
	return r.Execute(unix.NETLINK_ROUTE, 0)
}

// attributes calls take for each of those that follow a message's header of that size.
func attributes(m []byte, header int, take func(kind uint16, value []byte)) error {
	all, err := nl.ParseRouteAttr(m[header:])
	for _, a := range all {
		take(a.Attr.Type, a.Value)
	}
	return err
}

// number is an attribute's value.
func number(value []byte) int { return int(nl.NativeEndian().Uint32(value)) }

func numbered(kind, value int) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(uint32(value))) }

func readLink(m []byte) (link, error) {
	info := nl.DeserializeIfInfomsg(m)
	l := link{index: int(info.Index), flags: info.Flags}
	err := attributes(m, unix.SizeofIfInfomsg, func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			l.mac = value
		case unix.IFLA_MASTER:
			l.master = number(value)
		}
	})
	return l, err
}

// allLinks returns the interfaces that are there.
func allLinks() ([]link, error) {
	messages, err := ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_UNSPEC))
	var all []link
	for _, m := range messages {
		l, lerr := readLink(m)
		err = errors.Join(err, lerr)
		all = append(all, l)
	}
	return all, err
}

// linkOf returns the interface of that index.
func linkOf(index int) (link, error) {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	messages, err := ask(unix.RTM_GETLINK, 0, info)
	if err != nil || len(messages) == 0 {
		return link{}, err
	}
	return readLink(messages[0])
}

// setLink has an interface up, or down.
func setLink(index int, up bool) error {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index, info.Change = int32(index), unix.IFF_UP
	if up {
		info.Flags = unix.IFF_UP
	}
	_, err := ask(unix.RTM_NEWLINK, unix.NLM_F_ACK, info)
	return err
}

// watchLinks sends what changes about interfaces until done is closed, or the kernel ends
// the subscription.
func watchLinks(done chan struct{}) (<-chan linkUpdate, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("watching network interfaces: %w", err)
	}
	go func() {
		<-done
		s.Close()
	}()
	updates := make(chan linkUpdate)
	go func() {
		defer close(updates)
		for {
			messages, from, err := s.Receive()
			if err != nil {
				return
			}
			if from.Pid != nl.PidKernel {
				continue
			}
			for _, m := range messages {
				if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK {
					continue
				}
				if l, err := readLink(m.Data); err == nil {
					updates <- linkUpdate{l, m.Header.Type == unix.RTM_DELLINK}
				}
			}
		}
	}()
	return updates, nil
}

// allAddresses returns those of all interfaces.
func allAddresses() ([]address, error) {
	messages, err := ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	var all []address
	for _, m := range messages {
		info := nl.DeserializeIfAddrmsg(m)
		var local, other netip.Addr
		aerr := attributes(m, unix.SizeofIfAddrmsg, func(kind uint16, value []byte) {
			switch kind {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(value)
			case unix.IFA_ADDRESS: // of the other end, where there is one
				other, _ = netip.AddrFromSlice(value)
			}
		})
		err = errors.Join(err, aerr)
		bits := int(info.Prefixlen)
		switch {
		case !local.IsValid():
			local = other
		case local != other:
			bits = local.BitLen() // it is the other end's
		}
		if local.IsValid() {
			all = append(all, address{int(info.Index), netip.PrefixFrom(local, bits)})
		}
	}
	return all, err
}

// setAddress gives an interface an address, or takes it away.
func setAddress(kind, flags int, a address) error {
	ip := a.net.Addr()
	info := nl.NewIfAddrmsg(afOf(ip))
	info.Index, info.Prefixlen = uint32(a.index), uint8(a.net.Bits())
	parts := []nl.NetlinkRequestData{info, nl.NewRtAttr(unix.IFA_LOCAL, ip.AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, ip.AsSlice())}
	if ip.Is6() {
		info.Flags = unix.IFA_F_NODAD // EC2 assigns it to this card alone
	} else if a.net.Bits() < 31 {
		broadcast := ip.As4()
		for i, m := range net.CIDRMask(a.net.Bits(), 32) {
			broadcast[i] |= ^m
		}
		parts = append(parts, nl.NewRtAttr(unix.IFA_BROADCAST, broadcast[:]))
	}
	_, err := ask(kind, flags|unix.NLM_F_ACK, parts...)
	return err
}

// allRoutes returns those of the main table.
func allRoutes() ([]route, error) {
	messages, err := ask(unix.RTM_GETROUTE, unix.NLM_F_DUMP, nl.NewRtMsg())
	var all []route
	for _, m := range messages {
		info := nl.DeserializeRtMsg(m)
		if info.Flags&unix.RTM_F_CLONED != 0 || info.Table != unix.RT_TABLE_MAIN {
			continue
		}
		var r route
		to := netip.IPv4Unspecified()
		if info.Family == unix.AF_INET6 {
			to = netip.IPv6Unspecified()
		}
		rerr := attributes(m, unix.SizeofRtMsg, func(kind uint16, value []byte) {
			switch kind {
			case unix.RTA_OIF:
				r.index = number(value)
			case unix.RTA_DST:
				to, _ = netip.AddrFromSlice(value)
			case unix.RTA_GATEWAY:
				r.via, _ = netip.AddrFromSlice(value)
			}
		})
		err = errors.Join(err, rerr)
		r.to = netip.PrefixFrom(to, int(info.Dst_len))
		all = append(all, r)
	}
	return all, err
}

// setRoute adds a route to the main table, or removes it.
func setRoute(kind, flags int, r route) error {
	info := nl.NewRtMsg()
	info.Family, info.Dst_len = uint8(afOf(r.to.Addr())), uint8(r.to.Bits())
	parts := []nl.NetlinkRequestData{info, nl.NewRtAttr(unix.RTA_DST, r.to.Addr().AsSlice()), numbered(unix.RTA_OIF, r.index), numbered(unix.RTA_PRIORITY, r.priority)}
	switch {
	case r.via.IsValid():
		info.Flags = unix.RTNH_F_ONLINK
		parts = append(parts, nl.NewRtAttr(unix.RTA_GATEWAY, r.via.AsSlice()))
	case r.to.Addr().Is4():
		info.Scope = unix.RT_SCOPE_LINK
	}
	_, err := ask(kind, flags|unix.NLM_F_ACK, parts...)
	return err
}

func afOf(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
