# shellcheck shell=sh
# What the scenarios of real images do in the machine.

# opened_here NAME...: volumes are open and mounted
opened_here() {
	for v; do
		cryptsetup status "$v"
		test "$(findmnt -no SOURCE,FSTYPE "/mnt/$v" | tr -s ' ')" = "/dev/mapper/$v ext4"
	done
	grep '"result": "done"' /run/unlock/status.json
}

# covered_here NAME: nobody writes in the clear where the volume is not
covered_here() {
	test "$(ls /dev/mapper)" = control
	findmnt "/mnt/$1"
	if touch "/mnt/$1/in-the-clear"; then exit 1; fi
	# Not even root, having made it writable.
	mount -o remount,rw "/mnt/$1" || :
	if touch "/mnt/$1/in-the-clear"; then exit 1; fi
}

# shut_down does what an administrator does, instead of what ends scenarios.
shut_down() {
	echo "script: exit 0"
	systemctl poweroff
	sleep 600
}

# crash_or_dump crashes the kernel; in the kernel that is started then, it writes the
# dump, of which some will do.
crash_or_dump() {
	if test -e /proc/vmcore; then
		dmesg | grep 'unlock: '
		test "$(ls /dev/mapper)" = control
		dd if=/proc/vmcore of=/var/dump bs=1M count=16
		od -An -c -N4 /var/dump | grep 'E *L *F'
		echo "dump: written"
		return
	fi
	opened_here secretfs
	kexec -p /boot/crash-kernel --initrd=/boot/crash-initrd --append="root=LABEL=unlock-root ro console=ttyS0 panic=-1 no_timer_check nr_cpus=1 systemd.default_timeout_start_sec=600 systemd.default_device_timeout_sec=600"
	sync
	echo 1 >/proc/sys/kernel/sysrq
	echo c >/proc/sysrq-trigger
}
