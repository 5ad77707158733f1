#!/bin/sh
# /sbin/init of the real root that scenarios boot: runs the script on the second
# virtio disk and powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/console >/dev/console 2>&1
echo "script: begin"
tr -d '\000' </dev/vdb >/run/script
sh -eu /run/script
echo "script: exit $?"
sync
busybox poweroff -f
