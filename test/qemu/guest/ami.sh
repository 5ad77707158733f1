# shellcheck shell=sh
# What the scenarios of disk images do in the machine.

# ami_up: the login target is reached, the root has grown to its disk's size.
ami_up() {
	set -x
	active multi-user.target getty.target serial-getty@ttyS0.service
	systemctl --failed
	test -z "$(systemctl --failed --no-legend)"
	bootctl --no-pager status
	test "$(findmnt -no FSTYPE /boot/efi)" = vfat
	test "$(findmnt -bno SIZE /)" -gt 3200000000
	/lib/systemd/systemd-networkd-wait-online --timeout=60
}

# on_esp unpacks the initramfs that boots next and prints where it has unlock.
on_esp() {
	rm -rf /tmp/esp && mkdir /tmp/esp
	image=$(ls /boot/efi/debian/*/initrd* 2>/dev/null || ls /boot/efi/EFI/Linux/*.efi)
	case $image in *.efi) objcopy -O binary --only-section=.initrd "$image" /tmp/initrd && image=/tmp/initrd ;; esac
	unmkinitramfs "$image" /tmp/esp
	find /tmp/esp -path '*/usr/lib/unlock/unlock'
}

# ami_open VERSION: that version of unlock opened the volume in this boot.
ami_open() {
	test "$(findmnt -no SOURCE,FSTYPE /mnt/secretfs | tr -s ' ')" = "/dev/mapper/secretfs ext4"
	dmsetup table --showkeys secretfs | grep ':logon:cryptsetup:'
	grep "\"version\": \"$1\"" /run/unlock/status.json
}

ami_upgrade() {
	apt-get -q update
	DEBIAN_FRONTEND=noninteractive apt-get -qy upgrade
	# shellcheck disable=SC2016 # of dpkg-query
	test "$(dpkg-query -Wf '${Version}' unlock)" = 2-1
	cmp "$(on_esp)" /usr/lib/unlock/unlock
}

ami_purge() {
	apt-get -qy purge unlock
	test -z "$(on_esp)"
	test -n "$(ls /tmp/esp)"
}
