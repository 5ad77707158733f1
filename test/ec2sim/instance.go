package ec2sim

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// instance is a machine as EC2 knows it. It is made when its MAC address is first
// seen, and stays: a machine that boots again is the same instance.
type instance struct {
	id    string
	mac   net.HardwareAddr
	addr  netip.Addr
	addr6 netip.Addr
}

// instanceOf returns the instance with a MAC address.
func (c *Cloud) instanceOf(mac net.HardwareAddr) *instance {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	addr, addr6, n := firstAddr, firstAddr6, 0
	for _, i := range c.instances {
		if bytes.Equal(i.mac, mac) {
			return i
		}
		addr, addr6, n = i.addr.Next(), i.addr6.Next(), n+1
	}
	i := &instance{id: fmt.Sprintf("i-0123456789abcde%02x", n), mac: bytes.Clone(mac), addr: addr, addr6: addr6}
	c.instances = append(c.instances, i)
	c.launched(i, now)
	return i
}

// instanceAt returns the instance with an address, nil if there is none.
func (c *Cloud) instanceAt(addr netip.Addr) *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.instances {
		if i.addr == addr || i.addr6 == addr {
			return i
		}
	}
	return nil
}

// hostName is the name of the instance's address, without the domain.
func (i *instance) hostName() string {
	return "ip-" + strings.ReplaceAll(i.addr.String(), ".", "-")
}

// domain is the region's domain for private names.
func (c *Cloud) domain() string {
	if c.cfg.Region == "us-east-1" {
		return "ec2.internal"
	}
	return c.cfg.Region + ".compute.internal"
}
