# shellcheck shell=sh
# What the scenarios of scenarios.go do in the machine.

# stock_opens: cryptsetup and the passphrase alone open the first disk
stock_opens() { printf '%s' "$PASSPHRASE" | cryptsetup open --test-passphrase --key-file - /dev/nvme0n1; }

# to_stock writes through cryptsetup's mapping of the first disk what is read through ours.
to_stock() {
	cryptsetup close secretfs
	printf '%s' "$PASSPHRASE" | cryptsetup open --key-file - /dev/nvme0n1 stock
	mount /dev/mapper/stock /mnt
	cat /mnt/file
	echo "through cryptsetup" >/mnt/back
	umount /mnt
	cryptsetup close stock
}

# fill_each NAME... and show_each NAME...: volumes that somebody else encrypted
fill_each() {
	for name; do
		crypt "$name"
		mke2fs -q -t ext4 "/dev/mapper/$name"
		mount "/dev/mapper/$name" /mnt
		echo "in $name" >/mnt/file
		umount /mnt
	done
}
show_each() {
	for name; do
		mount -o ro "/dev/mapper/$name" /mnt
		cat /mnt/file
		umount /mnt
	done
}

# nothing_done: no volume was there
nothing_done() {
	grep '"result": "nothing"' /run/unlock/status.json
	stays_locked secretfs
}

# start_udev does what a system does before it looks for its volumes.
start_udev() {
	/lib/systemd/systemd-udevd --daemon
	udevadm trigger --action=add
	udevadm settle
}

# udev_knows: what udev says of the mapping of secretfs
udev_knows() {
	udevadm info /dev/mapper/secretfs
	if udevadm info /dev/mapper/secretfs | grep SYSTEMD_READY=0; then exit 1; fi
	test -L /dev/disk/by-id/dm-name-secretfs
	test "$(readlink -f /dev/mapper/secretfs)" = "$(readlink -f /dev/disk/by-id/dm-name-secretfs)"
}

runs_on() { test "$(uname -m)" = "$1"; }
