# shellcheck shell=sh
# Functions for the scripts of scenarios, which sh -eu runs in the machine once the
# system is up. The lab sets KEY and OTHER, the ARNs of two KMS keys, CA,
# the certificate authorities, TEXT, which scripts write to volumes, and where the boot
# says Secret, PASSPHRASE.

# crypt NAME...: active LUKS volumes whose keys the kernel does not give away
crypt() {
	for name; do
		cryptsetup status "$name" | grep -q 'is active'
		cryptsetup status "$name" | grep -q 'type: *LUKS'
		test -b "/dev/mapper/$name"
		dmsetup table --showkeys "$name"
		dmsetup table --showkeys "$name" | grep -q ':[0-9]*:logon:cryptsetup:'
	done
}

# mounted NAME [TYPE]: something is mounted at /mnt/NAME
mounted() { grep -q "^/dev/[^ ]* /mnt/$1 ${2-ext4} " /proc/mounts; }

# mounted_with DIRECTORY TYPE OPTIONS: the first of its mount options
mounted_with() { grep "^[^ ]* $1 $2 $3[, ]" /proc/mounts; }

stays_locked() { ! test -e "/dev/mapper/$1"; }

# absent FILE...
absent() {
	for file; do
		if test -e "$file"; then
			echo "$file is there"
			exit 1
		fi
	done
}

# write_file and read_file: a file on the volume secretfs
write_file() {
	crypt secretfs
	mounted secretfs
	echo "$TEXT" >/mnt/secretfs/file
	umount /mnt/secretfs
}
read_file() {
	crypt secretfs
	mounted secretfs
	cat /mnt/secretfs/file
}

# show_status prints the status on one line.
show_status() { echo "status: $(tr -d '\n' </run/unlock/status.json)"; }

# dump_memory waits until somebody, when the dump is written, presses Enter.
dump_memory() {
	echo "memory: dump now"
	read -r _
}

# standalone_up: what holds whenever the standalone image has started the system
standalone_up() {
	# Nothing of unlock's network is left: no address but lo's, no route, no card that is up.
	if busybox ip -o addr | grep -v '^[0-9]*: lo '; then exit 1; fi
	test "$(wc -l </proc/net/route)" -le 1
	if grep -v ' lo$' /proc/net/ipv6_route; then exit 1; fi
	for card in /sys/class/net/*; do
		test "$card" = /sys/class/net/lo || test $(($(cat "$card/flags") & 1)) = 0
	done
	# The real system's programs may dump core, as if there had been no initramfs.
	# shellcheck disable=SC3045 # dash knows it
	test "$(ulimit -Hc)" = unlimited
	if test -f /run/unlock/status.json; then grep -E '"(result|peak_rss_bytes|duration_ms)"' /run/unlock/status.json; fi
}
