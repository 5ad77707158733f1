package vm

import (
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// hotplug attaches a disk to the running machine through QEMU's machine protocol
// (QMP, docs/interop/qmp-spec.txt of QEMU).
func (m *Machine) hotplug(socket string, disk int) error {
	fail := func(err error) error { return fmt.Errorf("attaching disk %d: %w", disk, err) }
	conn, err := net.DialTimeout("unix", socket, 10*time.Second)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return fail(err)
	}
	answers, requests := json.NewDecoder(conn), json.NewEncoder(conn)
	command := func(name string, arguments map[string]string) error {
		if err := requests.Encode(map[string]any{"execute": name, "arguments": arguments}); err != nil {
			return err
		}
		for {
			var answer struct {
				Return *struct{} `json:"return"`
				Error  *struct {
					Desc string `json:"desc"`
				} `json:"error"`
			}
			if err := answers.Decode(&answer); err != nil {
				return err
			}
			if answer.Error != nil {
				return fmt.Errorf("%s: %s", name, answer.Error.Desc)
			}
			if answer.Return != nil {
				return nil
			}
			// The greeting, or an event.
		}
	}
	if err := command("qmp_capabilities", map[string]string{}); err != nil {
		return fail(err)
	}
	if err := command("device_add", map[string]string{
		"driver": "nvme", "bus": fmt.Sprintf("port%d", disk),
		"drive": fmt.Sprintf("nvme%d", disk), "serial": m.Disks[disk].Serial,
	}); err != nil {
		return fail(err)
	}
	return nil
}
