#!/bin/sh
# Sourced by dracut's init (images without systemd) once udev has settled: first in
# the initqueue, so that nothing else asks for the passphrase of a volume of ours.
# unlock itself holds up a boot that has failed; should it break down, it is tried
# again: the boot never goes on without a required volume, and opens no shell.
# shellcheck disable=SC2154 # hookdir is dracut's

# A logical volume may hold a volume of ours: the job that activates it would come
# after this one, which waits.
job=$hookdir/initqueue/settled/lvm_scan.sh
# shellcheck disable=SC1090 # made by udev's rules
[ ! -e "$job" ] || . "$job"

modprobe -qa dm-mod loop
until /usr/lib/unlock/unlock; do
    sleep 10
done
rm -f -- "$hookdir/initqueue/settled/00-unlock.sh" # done; unlock-finished.sh looks for it
