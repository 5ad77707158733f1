#!/bin/sh
# Run by mmdebstrap on a new system, whose root is $1: prepares it for scenarios.
set -eu
root=$1

echo unlock-test >"$root/etc/hostname"
echo "LABEL=unlock-root / ext4 defaults 0 1" >"$root/etc/fstab"
chroot "$root" systemd-machine-id-setup # it is not this one's first boot
touch "$root/etc/.updated" "$root/var/.updated"
mkdir -p "$root/etc/systemd/network" "$root/usr/local/sbin"

cat >"$root/etc/systemd/network/80-dhcp.network" <<'END'
[Match]
Name=e*
[Network]
DHCP=ipv4
END

# Not oneshot: the boot is over when the service has started.
cat >"$root/etc/systemd/system/scenario.service" <<'END'
[Unit]
Description=What the scenario looks at
[Service]
ExecStart=/usr/local/sbin/scenario
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
[Install]
WantedBy=multi-user.target
END

cat >"$root/usr/local/sbin/scenario" <<'END'
#!/bin/sh
systemctl is-system-running --wait
sleep 3 # until the login prompt is on the console
echo
echo "script: begin"
tr -d '\000' </dev/vdb >/run/script
sh -eux /run/script
echo "script: exit $?"
sync
systemctl poweroff -f -f
END
chmod 755 "$root/usr/local/sbin/scenario"

chroot "$root" passwd -q -d root
chroot "$root" systemctl -q enable systemd-networkd.service scenario.service
