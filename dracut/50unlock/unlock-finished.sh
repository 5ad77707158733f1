#!/bin/sh
# Sourced by dracut's init to learn whether the initqueue may end, which it may
# only when unlock.sh has run, even if the root device is there already.
# shellcheck disable=SC2154 # hookdir is dracut's

[ ! -e "$hookdir/initqueue/settled/00-unlock.sh" ]
