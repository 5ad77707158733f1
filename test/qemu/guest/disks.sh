# shellcheck shell=sh
# What the scenarios of disks, volumes and by hand do in the machine.

# write_stripe and read_stripe: secretfs lies on several disks
write_stripe() {
	dmsetup table secretfs | grep -q ' striped '
	mounted secretfs
	echo "$TEXT" >/mnt/secretfs/file
	umount /mnt/secretfs
}
read_stripe() {
	dmsetup table secretfs | grep -q ' striped '
	mounted secretfs
	cat /mnt/secretfs/file
}

# write_mirror KIND DISKS: secretfs lies on so many disks, in dm-raid's kind
write_mirror() {
	dmsetup table secretfs | grep " raid $1 "
	test "$(dmsetup status secretfs | cut -d' ' -f6)" = "$(printf "%$2s" | tr ' ' A)"
	mounted secretfs
	echo "$TEXT" >/mnt/secretfs/file
	umount /mnt/secretfs
}
# read_mirror N: N disks of it are there
read_mirror() {
	dmsetup table secretfs
	dmsetup status secretfs
	test "$(dmsetup ls | grep -c '^secretfs_[0-9]*_data')" = "$1"
	mounted secretfs
	cat /mnt/secretfs/file
}
# keep_writing writes until power fails.
keep_writing() {
	echo "writing now"
	while :; do
		cp /bin/busybox /mnt/secretfs/
		sync
	done
}
# give_up N: disk N of it, from 0, takes no data any more, and the kernel goes on without it.
give_up() {
	mounted secretfs
	data="secretfs_${1}_data"
	dmsetup load "$data" --table "0 $(dmsetup table "$data" | cut -d' ' -f2) error"
	dmsetup resume "$data"
	write_later
	sync
	dmsetup status secretfs
	test "$(dmsetup status secretfs | cut -d' ' -f6 | cut -c$(($1 + 1)))" = D
}
write_later() {
	echo "$TEXT, later" >/mnt/secretfs/later
	umount /mnt/secretfs
}
read_later() { grep later /mnt/secretfs/later; }

# join_mirror: the disk that was gone takes part again.
join_mirror() {
	by_hand /dev/vdc
	of_header <<-END
		device     = "instance-store"
		layout     = "mirror"
		filesystem = "ext4"
		mount      = "/mnt/secretfs"
	END
	read_mirror 1
	tool join
	dmsetup status secretfs
	test "$(dmsetup status secretfs | cut -d' ' -f6)" = AA
	if tool join; then exit 1; fi
	read_later
	tool close
	test "$(dmsetup ls)" = "No devices found"
	tool open
	read_mirror 2
}

# size_is NAME MIB
size_is() { test "$(blockdev --getsize64 "/dev/mapper/$1")" = $(($2 * 1048576)); }

# write_each and read_each: secretfs is one volume for each disk
write_each() {
	for node in /dev/mapper/secretfs?*; do
		v=${node##*/}
		crypt "$v"
		mount "$node" /mnt
		echo "in $v" >/mnt/file
		umount /mnt
	done
}
read_each() {
	n=0
	for node in /dev/mapper/secretfs?*; do
		mount -o ro "$node" /mnt
		grep -x "in ${node##*/}" /mnt/file
		umount /mnt
		n=$((n + 1))
	done
	echo "read $n volumes"
}

passes_discards() { dmsetup table "$1" | grep allow_discards; }

# write_as TYPE and read_as TYPE: secretfs has a file system of that type
write_as() {
	crypt secretfs
	mounted secretfs "$1"
	echo "$TEXT" >/mnt/secretfs/file
	umount /mnt/secretfs
}
read_as() {
	mounted secretfs "$1"
	cat /mnt/secretfs/file
}

# maps_with NAME CIPHER: NAME is a volume in that cipher
maps_with() { dmsetup table "$1" | grep -q " crypt $2 "; }

# fill_all NAME: data everywhere on it
fill_all() {
	dd if=/dev/urandom of="/dev/mapper/$1" bs=1M conv=fsync || true
}

# copy_system makes secretfs, mounted, a root.
copy_system() {
	(cd / && cp -a bin etc lib lib64 sbin usr /mnt/secretfs)
	mkdir /mnt/secretfs/dev /mnt/secretfs/proc /mnt/secretfs/sys /mnt/secretfs/run /mnt/secretfs/mnt
	umount /mnt/secretfs
}

# swaps: secretfs is swap space
swaps() {
	crypt secretfs
	swapon /dev/mapper/secretfs
	cat /proc/swaps
	swapoff /dev/mapper/secretfs
}

# has_grown_to MIB: secretfs and its file system take all of a disk of that size. ext4 has
# a block of each of its groups, of 32 MiB or more, for itself, and a journal.
has_grown_to() {
	size_is secretfs $(($1 - 16))
	test "$(df -k --output=size /mnt/secretfs | tail -n 1)" -gt $((($1 - 16) * 1024 * 7 / 10))
}

# is_new: secretfs was made in this boot
is_new() {
	crypt secretfs
	mounted secretfs
	absent /mnt/secretfs/file
}

# covered NAME: nobody writes in the clear where the volume is not
covered() {
	stays_locked "$1"
	if touch "/mnt/$1/in-the-clear"; then exit 1; fi
}

# allocated FILE BYTES: a file of root's, all of whose blocks, of 512 bytes, are on the disk
allocated() {
	test "$(stat -c '%a %u %s' "$1")" = "600 0 $2"
	test "$(stat -c %b "$1")" -ge $(($2 / 512))
}

# write_lvm and read_lvm: a logical volume on secretfs
write_lvm() {
	crypt secretfs
	start_udev
	pvcreate -q /dev/mapper/secretfs
	vgcreate -q data /dev/mapper/secretfs
	lvcreate -q -n files -L 32M data
	mke2fs -q -t ext4 /dev/data/files
	mount /dev/data/files /mnt
	echo "$TEXT" >/mnt/file
	umount /mnt
}
read_lvm() {
	crypt secretfs
	start_udev
	vgchange -ay data
	pvs
	mount /dev/data/files /mnt
	cat /mnt/file
}

# by_hand DISK: prepares what an operator does with unlockctl on a machine that runs. The
# tool is that disk, which follows those of the scenario.
by_hand() {
	cp "$1" /run/unlockctl
	chmod +x /run/unlockctl
	echo "$CA" >/run/ca.pem
	export AWS_CA_BUNDLE=/run/ca.pem
	for card in /sys/class/net/[!l]*; do
		busybox ip link set "${card##*/}" up
		busybox ip addr replace 172.31.5.10/20 dev "${card##*/}"
	done
	busybox ip route replace default via 172.31.0.1
	echo "nameserver 172.31.0.2" >/etc/resolv.conf
}

# recover_again HOW...: closes the volume and opens it by hand.
recover_again() {
	dmsetup remove_all
	dmsetup remove_all
	test "$(dmsetup ls)" = "No devices found"
	/run/unlockctl recover --name again "$@" /dev/nvme1n1 /dev/nvme0n1
	mount -o ro /dev/mapper/again /mnt
	echo "$1: $(cat /mnt/file)"
	umount /mnt
}

# open_attached: a volume whose disk comes when the system is up is opened, closed and grown
# by the tool. Its disk is a part of the real one, so that it can be enlarged meanwhile; the
# real one is another volume's, which udev would have opened.
open_attached() {
	by_hand /dev/vdc
	start_udev
	of_header <<-END
		device     = "/dev/mapper/below"
		format     = "blank"
		filesystem = "ext4"
		mount      = "/mnt/secretfs"
		[[volume]]
		name   = "whole"
		device = "serial=OTHER"
	END
	covered secretfs
	echo "attach it now"
	until udevadm info -q property /dev/nvme0n1 2>/dev/null | grep -x 'SYSTEMD_WANTS=unlock@whole.service'; do sleep 0.1; done
	dmsetup create below --table "0 98304 linear /dev/nvme0n1 0"
	if tool open; then exit 1; fi
	stays_locked secretfs
	tool open --format
	crypt secretfs
	mounted secretfs
	echo "$TEXT" >/mnt/secretfs/file
	tool open

	sleep 1000 >/mnt/secretfs/held &
	if tool close; then exit 1; fi
	mounted secretfs
	kill $!
	wait $! || true
	tool close
	covered secretfs
	tool close
	tool open
	cat /mnt/secretfs/file

	dmsetup reload below --table "0 131072 linear /dev/nvme0n1 0"
	dmsetup resume below
	tool grow
	has_grown_to 64
	crypt secretfs
	tool grow
	cat /mnt/secretfs/file
	tool close
	dmsetup remove below
}
tool() {
	/run/unlockctl "$@" secretfs
}

# of_header, of_s3: the configuration of one volume, whose settings are read, with its key
# in its header or in S3.
of_header() { of_source header; }
of_s3() { of_source s3://an-internalstoragekeybucket/LuksInternalStorageKey 'context = { purpose = "secretfs" }'; }
of_source() { # of_source SOURCE [MORE]
	cat >/etc/unlock.toml <<-END
		[aws]
		ca_bundle = "/run/ca.pem"
		[key]
		source  = "$1"
		kms_key = "$KEY"
		${2-}
		[[volume]]
		name       = "secretfs"
	END
	cat >>/etc/unlock.toml
}

# reopen_file: a volume in a file keeps its loop device while it is open, and no longer. A
# directory that has come to lie on it comes and goes with it.
reopen_file() {
	by_hand /dev/vdc
	of_s3 <<-END
		device     = "file:/var/secretfs"
		size       = "48MiB"
		filesystem = "ext4"
		mount      = "/mnt/secretfs"
		[[volume.bind]]
		path = "/etc/cron.daily"
		from = "state/cron"
		seed = true
	END
	tool open
	test "$(losetup --list --noheadings | wc -l)" = 1
	same_directory /etc/cron.daily /mnt/secretfs/state/cron
	touch /etc/cron.daily/here
	tool close
	test -z "$(losetup --list --noheadings)"
	absent /etc/cron.daily/here
	tool open
	tool open
	test "$(grep -c ' /etc/cron.daily ' /proc/mounts)" = 1
	test -e /etc/cron.daily/here
	/run/unlockctl status || true
}

# close_stripe: a stripe that the boot opened is closed and opened by the tool, and closed
# again when somebody has taken it apart already.
close_stripe() {
	by_hand /dev/vdc
	of_s3 <<-END
		device     = "instance-store"
		filesystem = "ext4"
		mount      = "/mnt/secretfs"
	END
	dmsetup table secretfs | grep -q ' striped '
	mounted secretfs
	tool close
	test "$(dmsetup ls)" = "No devices found"
	tool open
	dmsetup table secretfs | grep -q ' striped '
	tool open
	mounted secretfs
	cat /mnt/secretfs/file
	umount /mnt/secretfs
	dmsetup remove secretfs
	tool close
	test "$(dmsetup ls)" = "No devices found"
}

# recover_each_way opens the volume by each of the keys that people have at hand.
recover_each_way() {
	by_hand /dev/vdc
	umount /mnt/secretfs
	recover_again --sealed=s3://an-internalstoragekeybucket/LuksInternalStorageKey --kms-key "$KEY" --context purpose=secretfs
	printf %s "$PASSPHRASE" >/run/passphrase
	/run/unlockctl enroll --kms-key "$KEY" --key-file /run/passphrase /dev/nvme0n1 /dev/nvme1n1
	recover_again --kms-key="$KEY"
	/run/unlockctl enroll --recovery-key --key-file /run/passphrase /dev/nvme0n1 /dev/nvme1n1 | tr -d '\n' >/run/paper
	recover_again --key-file=/run/paper
	cryptsetup luksDump /dev/nvme0n1 | grep systemd-recovery
}
