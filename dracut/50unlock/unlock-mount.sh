#!/bin/sh
# Sourced by dracut's init (images without systemd) before it switches root. See
# unlock.sh.

until /usr/lib/unlock/unlock mount "$NEWROOT"; do
    sleep 10
done
udevadm settle --timeout=30 # init stops udevd, which would forget the newest volumes
# busybox's switch_root, unlike that of util-linux, leaves /run behind, and with it what
# unlock-guard.service asks for.
ismounted "$NEWROOT/run" || [ ! -d "$NEWROOT/run" ] || mount -o bind /run "$NEWROOT/run"
