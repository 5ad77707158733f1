#!/bin/sh
# Runs a command in a throw-away copy of a system: IMAGE STAGE OUT COMMAND..., in mount
# and process namespaces of its own. STAGE is laid over the copy, OUT is its
# /mnt and gets a list of the files of STAGE.
set -eu
image=$1 stage=$2 out=$3
shift 3

work=$(mktemp -d -p "$(dirname "$out")") # a place that the caller removes
mount -t tmpfs unlock-test "$work"
mkdir "$work/lower" "$work/upper" "$work/work" "$work/root"
mount -o loop,ro "$image" "$work/lower"
mount -t overlay -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/work" unlock-test "$work/root"
cp -a "$stage/." "$work/root"
(cd "$stage" && find . ! -type d) >"$out/installed"

mount -t proc proc "$work/root/proc"
mount -t sysfs -o ro sysfs "$work/root/sys"
for node in null zero full random urandom; do
	[ -e "$work/root/dev/$node" ] || : >"$work/root/dev/$node"
	mount --bind "/dev/$node" "$work/root/dev/$node"
done
ln -sfn /proc/self/fd "$work/root/dev/fd"
mount --bind "$out" "$work/root/mnt"

exec chroot "$work/root" "$@"
