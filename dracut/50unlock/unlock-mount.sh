#!/bin/sh
# Sourced by dracut's init (images without systemd) before it switches root.

until /usr/lib/unlock/unlock mount "$NEWROOT"; do
    emergency_shell -n unlock "unlock: a required volume is not mounted; leave this shell to try again"
done
udevadm settle --timeout=30 # init stops udevd, which would forget the newest volumes
