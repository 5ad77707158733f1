package block

import "strings"

// Mapped returns the disks with Kind and Attach of those that IMDS names in the
// instance's block-device-mapping: where disks are not NVMe (Xen instances),
// nothing on the machine tells instance store from EBS. The mapping's keys are
// "ephemeral0", "ebs1", "ami" or "root", its values "sdb" or "/dev/sdb"; the
// kernel may call that disk sdb, xvdb or vdb. Disks whose kind is known stay as
// they are, because NVMe instances ignore the mapping of instance store.
func Mapped(disks []Disk, mapping map[string]string) []Disk {
	mapped := append([]Disk(nil), disks...)
	for key, value := range mapping {
		name := strings.TrimPrefix(value, "/dev/")
		kind, attach := KindEBS, name
		if number, ok := strings.CutPrefix(key, "ephemeral"); ok && number != "" && digits(number) == len(number) {
			kind, attach = KindInstanceStore, key
		} else if key != "ami" && key != "root" && !strings.HasPrefix(key, "ebs") {
			continue // "swap" can be on either
		}
		if i := mappedDisk(mapped, name); i >= 0 && mapped[i].Kind == KindOther && mapped[i].Parent == "" {
			mapped[i].Kind, mapped[i].Attach = kind, attach
		}
	}
	return mapped
}

// mappedDisk finds the disk that the mapping calls name, -1 if there is none.
func mappedDisk(disks []Disk, name string) int {
	names := []string{name}
	if letters, ok := strings.CutPrefix(name, "sd"); ok {
		names = append(names, "xvd"+letters, "vd"+letters)
	}
	for _, name := range names {
		for i, d := range disks {
			if d.Name == name {
				return i
			}
		}
	}
	return -1
}
