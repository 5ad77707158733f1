package netup

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
)

// listLinks returns the interfaces that are there, those of network cards in the order
// of their buses, in which EC2 attaches them: the primary one comes first.
func listLinks() ([]link, error) {
	links, err := allLinks()
	if err != nil {
		return nil, fmt.Errorf("listing network interfaces: %w", err)
	}
	sort.SliceStable(links, func(i, j int) bool { return place(links[i].name) < place(links[j].name) })
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
