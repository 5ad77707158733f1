# shellcheck shell=sh
# What the benchmark does in the machine.

# bench_prepare URL: a volume with the passphrase, and one more keyslot that clevis opens
# with the tang at URL
bench_prepare() {
	luks_format /dev/nvme0n1 --uuid "$BENCH_UUID"
	/lib/systemd/systemd-networkd-wait-online --timeout=300
	clevis luks bind -y -k /run/key -d /dev/nvme0n1 tang "{\"url\":\"$1\"}"
	cryptsetup open --key-file /run/key /dev/nvme0n1 secretfs
	mke2fs -q -t ext4 /dev/mapper/secretfs
	mount /dev/mapper/secretfs /mnt
	echo "$TEXT" >/mnt/file
	umount /mnt
	cryptsetup close secretfs
}
BENCH_UUID=7d1f9a52-0c35-4a86-9d5e-5be1c2a4f361

# bench_mounted: the volume is there
bench_mounted() { grep "$TEXT" /mnt/secretfs/file || { journalctl -b -o cat -u recipe.service && false; }; }

# bench_times prints when, in microseconds since the kernel started, it handed over to the
# first process, the system's own systemd began, sysinit.target was reached, all was done,
# and a volume was mounted; and for how long processors were busy until now, in hundredths of a second.
bench_times() {
	set +x
	dmesg >/run/dmesg
	echo "bench: kernel=$(logged 'Run .* as init process') volume=$(logged 'EXT4-fs (dm-[0-9]*): mounted') \
userspace=$(monotonic UserspaceTimestampMonotonic) finish=$(monotonic FinishTimestampMonotonic) \
sysinit=$(monotonic ActiveEnterTimestampMonotonic sysinit.target) \
cpu=$(busy)"
}
busy() { # user, nice, system, irq, softirq of all processors (proc(5))
	while read -r name user nice system _ _ irq softirq _; do
		[ "$name" != cpu ] || echo $((user + nice + system + irq + softirq))
	done </proc/stat
}
logged() { sed -n "s/^\[ *\([0-9]*\)\.\([0-9]*\)\] $1.*/\1\2/p" /run/dmesg | head -n 1; }
monotonic() { systemctl show --value -p "$@"; }
