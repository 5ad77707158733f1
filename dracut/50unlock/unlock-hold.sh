#!/bin/sh
# Sourced by dracut's emergency_shell (images with systemd) where it opens no shell: before
# it obeys rd.emergency=, and newer ones power off unasked. emergency.conf does the same
# for units. When the volumes are open the boot begins again, without who gave up here.

/usr/lib/unlock/unlock hold || exit 0
