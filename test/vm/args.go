package vm

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Disk is a disk of the machine.
type Disk struct {
	File     string // raw image
	Serial   string // "AWS…" is an instance-store disk to unlock; at most 20 characters
	Late     string // attached once the console shows this; "": from the beginning. Only NVMe disks can be
	Virtio   bool   // a virtio disk, which follows Root's as /dev/vdc, instead of an NVMe disk
	ReadOnly bool   // write-protected
	First    bool   // firmware boots from it, and looks at no other
	Errors   string // what fails with an I/O error: "read" or "write"; "": nothing
}

// Serial returns the serial number of the instance-store disk number n.
func Serial(n int) string { return fmt.Sprintf("AWS%017X", 0x0123456789ABCDEF0+n) }

func (m *Machine) qemu() string {
	if m.ARM64 {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// Always is on every kernel's command line. On a busy host the kernel takes QEMU's timer for broken, and
// panics. Mitigations take time, and protect from nothing here.
const Always = "panic=-1 no_timer_check mitigations=off"

// args returns QEMU's arguments; what they name lies in dir.
func (m *Machine) args(dir string) ([]string, error) {
	a := []string{
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-qmp", "unix:" + escape(filepath.Join(dir, "qmp")) + ",server=on,wait=off",
		"-accel", "tcg,thread=single", // else now and then a kernel that patches itself runs into its own breakpoint
		"-smp", strconv.Itoa(CPUs), "-m", strconv.Itoa(m.memory()),
		"-device", "virtio-rng-pci",
	}
	console := "ttyS0"
	if m.ARM64 {
		console = "ttyAMA0"
		a = append(a, "-M", "virt", "-cpu", "max,pauth-impdef=on") // the architecture's own pointer authentication takes long to emulate
	} else {
		machine := "q35"
		if m.Variables != "" {
			machine += ",smm=on" // which keeps the system from changing them
		}
		// With erms the kernel would copy byte by byte, which takes long to emulate. It takes fsrm to imply erms: with
		// fsrm alone its memmove would copy too much of what is short.
		a = append(a, "-M", machine, "-cpu", "max,erms=off,fsrm=off")
	}
	for _, text := range m.OEM {
		a = append(a, "-smbios", "type=11,value="+escape(text))
	}
	switch {
	case m.Variables != "":
		a = append(a, "-global", "driver=cfi.pflash01,property=secure,value=on",
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+escape(m.Firmware),
			"-drive", "if=pflash,format=raw,unit=1,snapshot=on,file="+escape(m.Variables))
	case m.Firmware != "":
		a = append(a, "-bios", m.Firmware)
	default:
		kernel := m.Kernel
		if !m.ARM64 {
			kernel = vmlinux(kernel)
		}
		// Huge pages that nobody asked for, unlike in the clouds' own images, take half of the time in which a
		// whole system starts, to be cleared.
		a = append(a, "-kernel", kernel, "-append", "console="+console+" "+Always+" transparent_hugepage=madvise "+m.Append)
		if m.Initrd != "" {
			a = append(a, "-initrd", m.Initrd)
		}
	}
	if m.Clock != "" {
		a = append(a, "-rtc", "base="+m.Clock)
	}
	if m.Root != "" {
		snapshot := "on"
		if m.KeepRoot {
			snapshot = "off"
		}
		a = append(a, "-drive", "if=none,id=root,format=raw,snapshot="+snapshot+",file="+escape(m.Root), "-device", "virtio-blk-pci,drive=root")
	}
	if m.Root != "" || m.Firmware != "" {
		script := filepath.Join(dir, "script")
		if err := os.WriteFile(script, sectors(m.Script), 0o600); err != nil {
			return nil, fmt.Errorf("writing the machine's script: %w", err)
		}
		a = append(a, "-drive", "if=none,id=script,format=raw,read-only=on,file="+escape(script), "-device", "virtio-blk-pci,drive=script")
	}
	for i, d := range m.Disks {
		a = append(a, d.args(i)...)
	}
	for i, c := range m.Cards {
		a = append(a, c.args(dir, i)...)
	}
	return a, nil
}

// memory returns the machine's memory in MiB.
func (m *Machine) memory() int { return cmp.Or(m.Memory, 1024) }

// args returns QEMU's arguments for disk number i.
func (d *Disk) args(i int) []string {
	drive := fmt.Sprintf("if=none,id=disk%d,format=raw,", i)
	if d.ReadOnly {
		drive += "read-only=on,"
	}
	if d.Errors != "" {
		drive += fmt.Sprintf("file.driver=blkdebug,file.inject-error.0.event=none,file.inject-error.0.iotype=%s,file.image.filename=", d.Errors)
	} else {
		drive += "file="
	}
	device := fmt.Sprintf("nvme,drive=disk%d,serial=%s", i, d.Serial)
	switch {
	case d.Virtio:
		device = fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s", i, d.Serial)
	case d.Late != "":
		device = fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d", i, i+1) // a slot to plug it into
	}
	if d.First {
		device += ",bootindex=0"
	}
	return []string{"-drive", drive + escape(d.File), "-device", device}
}

// sectors returns text as a disk's content: whole sectors, at least one.
func sectors(text string) []byte {
	const sector = 512
	b := make([]byte, (len(text)/sector+1)*sector)
	copy(b, text)
	return b
}

// escape protects a file name in a comma-separated option of QEMU.
func escape(file string) string { return strings.ReplaceAll(file, ",", ",,") }
