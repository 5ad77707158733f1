# shellcheck shell=sh
# What the scenarios of distributions do in the machine.

# active UNIT...: all of them, asked at once, as starting a program takes seconds in the emulator
active() { test "$(systemctl is-active "$@" || :)" = "$(for _; do echo active; done)"; }

# distribution_up: what holds of a system that is up. The network must be there by the
# distribution's own means: one address and one default route, both by DHCP.
distribution_up() {
	set -x
	active multi-user.target getty.target serial-getty@ttyS0.service
	jobs=$(systemctl list-jobs --no-legend)
	test -z "$(echo "$jobs" | grep -E 'device|mount|crypt')"
	failed=$(systemctl --failed --no-legend --plain)
	for unit in $(echo "$failed" | cut -d' ' -f1); do journalctl -b -o cat -u "$unit"; done
	test -z "$failed"
	/lib/systemd/systemd-networkd-wait-online --timeout=60
	ip address
	ip route
	test "$(ip -o -4 address show scope global | wc -l)" = 1
	ip -o -4 address show scope global | grep -q dynamic
	test "$(ip route show default | wc -l)" = 1
	ip route show default | grep -q 'proto dhcp'
	test -z "$(ip route | grep -v proto)"
	test "$(cat /proc/sys/net/ipv6/conf/e*/disable_ipv6)" = 0
	systemd-analyze critical-chain >/run/chain
	cat /run/chain
	test -z "$(grep -E 'dev-mapper-(secretfs|infile|on)|unlock' /run/chain)"
}

# opened NAME...: volumes that the system knows, mounted where the configuration says
opened() {
	for v; do
		cryptsetup status "$v"
		test "$(findmnt -no SOURCE,FSTYPE "/mnt/$v" | tr -s ' ')" = "/dev/mapper/$v ext4"
		udevadm info "/dev/mapper/$v"
		active "dev-mapper-$v.device" "mnt-$v.mount"
	done
}

# show_start prints when systemd started unlock, in microseconds since the kernel started.
show_start() {
	journalctl -b -o short-monotonic _PID=1 | grep 'unlock'
	echo "started: $(journalctl -b -o short-monotonic _PID=1 | sed -n 's/^\[ *\([0-9]*\)\.\([0-9]*\)\].* Starting unlock\.service.*/\1\2/p' | head -n 1)"
}

# write_open and read_open: a file on a volume that stays mounted
write_open() { echo "$TEXT" >/mnt/secretfs/file; }
read_open() { cat /mnt/secretfs/file; }

# no_volumes: on request
no_volumes() {
	cat /proc/mounts
	test "$(ls /dev/mapper)" = control
}

# already_active: systemd's own unit for crypttab found the volume open.
already_active() {
	active systemd-cryptsetup@secretfs.service
	# Not by unit: journald may be too late to learn whose so brief a process was.
	journalctl -b -o cat -t systemd-cryptsetup | grep 'secretfs already active'
}

# typed_open: systemd's own unit opened the volume with what a person typed.
typed_open() {
	active systemd-cryptsetup@secretfs.service
	mount /dev/mapper/secretfs /mnt
	cat /mnt/file
}

# luks_format DEVICE OPTION... makes a volume as an image builder does.
luks_format() {
	set +x # the console must not show it
	printf '%s' "$PASSPHRASE" >/run/key
	set -x
	cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key "$@"
}

# move_root puts the root file system of the disk behind the script's on a volume.
move_root() {
	luks_format /dev/nvme0n1
	cryptsetup open --key-file /run/key /dev/nvme0n1 system
	e2image -ra /dev/vdc /dev/mapper/system
}
root_on_volume() {
	cryptsetup status system
	test "$(findmnt -no SOURCE /)" = /dev/mapper/system
}
write_root() { echo "$TEXT" >/root/file; }

# make_stacked LUKS-UUID ARRAY-UUID: LUKS on a logical volume, and on an array
make_stacked() {
	pvcreate -q -y /dev/nvme0n1
	vgcreate -q vault /dev/nvme0n1
	lvcreate -q -y -n secret -l 100%FREE vault
	mdadm --create /dev/md/files --run --level=1 --raid-devices=2 --metadata=1.0 --assume-clean --uuid="$2" /dev/nvme1n1 /dev/nvme2n1
	fill_stacked onlv /dev/vault/secret
	fill_stacked onmd /dev/md/files --uuid "$1"
}
fill_stacked() { # NAME DEVICE OPTION...
	name=$1 device=$2
	shift
	luks_format "$@"
	cryptsetup open --key-file /run/key "$device" "$name"
	mke2fs -q -t ext4 "/dev/mapper/$name"
	mount "/dev/mapper/$name" /mnt
	echo "$TEXT, in $name" >/mnt/file
	umount /mnt
	cryptsetup close "$name"
}
read_stacked() {
	for v in onlv onmd; do
		test "$(findmnt -no SOURCE,FSTYPE "/mnt/$v" | tr -s ' ')" = "/dev/mapper/$v ext4"
		cat "/mnt/$v/file"
		active "mnt-$v.mount"
	done
	cryptsetup status onlv | grep 'device: */dev/mapper/vault-secret'
	cryptsetup status onmd | grep 'device: */dev/md'
	cat /proc/mdstat
}
