package vm

import (
	"context"
	"fmt"
	"time"
)

// Event is something that befalls a machine.
type Event struct {
	When  string                      // the console shows this; "": before the machine starts
	After time.Duration               // and this much later
	Do    []Request                   // what QEMU does
	Call  func(context.Context) error // what happens outside the machine, after Do; may be nil, and is not called before the machine starts
}

// Link plugs the cable of a network card in, or out. It is plugged in at first.
func Link(card int, up bool) Request {
	return Request{"set_link", map[string]any{"name": fmt.Sprintf("card%d", card), "up": up}}
}

// Stall has a disk answer nothing any more, though it is there.
func Stall(disk int) Request {
	// One byte a second. What is under way when the limit comes still ends.
	return Request{"block_set_io_throttle", map[string]any{
		"device": fmt.Sprintf("disk%d", disk), "bps": 1, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
	}}
}

// Unplug asks the machine to give up a disk that was attached late, which takes it some
// seconds.
func Unplug(disk int) Request {
	return Request{"device_del", map[string]any{"id": fmt.Sprintf("nvme%d", disk)}}
}

// PlugInstead attaches a disk where another one was, with its serial number. Neither has
// been there from the beginning.
func (m *Machine) PlugInstead(disk, of int) Request {
	return Request{"device_add", map[string]any{
		"driver": "nvme", "id": fmt.Sprintf("nvme%d", disk), "bus": fmt.Sprintf("port%d", of), "drive": fmt.Sprintf("disk%d", disk), "serial": m.Disks[of].Serial,
	}}
}

// DumpMemory writes the machine's physical memory to a file, one byte for each, while
// the machine stands still. Below 2 GiB all memory of a q35 machine is in one piece.
func (m *Machine) DumpMemory(file string) []Request {
	return []Request{
		{Execute: "stop"},
		{"pmemsave", map[string]any{"val": 0, "size": m.memory() << 20, "filename": file}},
		{Execute: "cont"},
	}
}
