#!/bin/sh
# Sourced by dracut's init (images without systemd) once udev has settled: first in
# the initqueue, so that nothing else asks for the passphrase of a volume of ours.
# Leaving the emergency shell tries again: the boot never goes on without a
# required volume.
# shellcheck disable=SC2154 # hookdir is dracut's

modprobe -qa dm-mod loop
until /usr/lib/unlock/unlock; do
    emergency_shell -n unlock "unlock: a required volume stayed locked; leave this shell to try again"
done
rm -f -- "$hookdir/initqueue/settled/00-unlock.sh" # done; unlock-finished.sh looks for it
