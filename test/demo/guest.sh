# shellcheck shell=sh
# What the demonstration does in the machine.

write_and_show() {
	echo "$TEXT" >/mnt/secretfs/file
	sync
	show_status
}

read_and_show() {
	sed 's/^/file: /' /mnt/secretfs/file
	show_status
}
