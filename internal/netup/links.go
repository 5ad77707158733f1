package netup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// watchLinks sends what changes about network interfaces until done is closed.
func watchLinks(done chan struct{}) (<-chan netlink.LinkUpdate, error) {
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return nil, fmt.Errorf("watching network interfaces: %w", err)
	}
	return updates, nil
}

// listLinks returns the interfaces that are there, those of network cards in the order
// of their buses, in which EC2 attaches them: the primary one comes first.
func listLinks() ([]netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing network interfaces: %w", err)
	}
	slices.SortStableFunc(links, func(a, b netlink.Link) int {
		return strings.Compare(place(a.Attrs().Name), place(b.Attrs().Name))
	})
	return links, nil
}

// place is where the bus has a network card, such as
// /sys/devices/pci0000:00/0000:00:05.0; "" for lo, bridges, tunnels and the like.
func place(name string) string {
	device := filepath.Join("/sys/class/net", name, "device")
	if _, err := os.Stat(device); err != nil {
		return ""
	}
	if path, err := filepath.EvalSymlinks(device); err == nil {
		return path
	}
	return device
}
