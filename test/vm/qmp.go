package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// Request is a command of QEMU's machine protocol.
type Request struct {
	Execute   string         `json:"execute"`
	Arguments map[string]any `json:"arguments,omitempty"`
}

// addDisk attaches a disk in the slot that is kept for it.
func (m *Machine) addDisk(i int) Request {
	return Request{"device_add", map[string]any{
		"driver": "nvme", "id": fmt.Sprintf("nvme%d", i), "bus": fmt.Sprintf("port%d", i), "drive": fmt.Sprintf("disk%d", i), "serial": m.Disks[i].Serial,
	}}
}

// qmp has QEMU carry out requests, through its machine protocol (QMP,
// docs/interop/qmp-spec.txt of QEMU). The socket appears soon after QEMU starts.
func qmp(ctx context.Context, dir string, requests ...Request) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := dialSoon(ctx, filepath.Join(dir, "qmp"))
	if err != nil {
		return fmt.Errorf("controlling QEMU: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	for _, r := range append([]Request{{Execute: "qmp_capabilities"}}, requests...) {
		if err := out.Encode(r); err != nil {
			return fmt.Errorf("controlling QEMU: %s: %w", r.Execute, err)
		}
		if err := answer(in); err != nil {
			return fmt.Errorf("controlling QEMU: %s: %w", r.Execute, err)
		}
	}
	return nil
}

func dialSoon(ctx context.Context, socket string) (net.Conn, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// answer reads up to the answer of a request.
func answer(in *json.Decoder) error {
	for {
		var a struct {
			Return *struct{} `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := in.Decode(&a); err != nil {
			return err
		}
		if a.Error != nil {
			return fmt.Errorf("%s", a.Error.Desc)
		}
		if a.Return != nil {
			return nil
		}
		// The greeting, or an event.
	}
}
