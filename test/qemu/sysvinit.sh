#!/bin/sh
# Started by init(8) when its runlevel is up: runs the scenario's script, as
# scenario.service does where there is systemd.
echo "script: begin"
tr -d '\000' </dev/vdb >/run/script
sh -eux /run/script
echo "script: exit $?"
sync
echo o >/proc/sysrq-trigger
sleep 600
