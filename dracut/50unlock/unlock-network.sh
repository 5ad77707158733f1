#!/bin/sh
# Run before unlock in images with systemd and dracut's network-legacy. Its network
# comes up in dracut-initqueue.service, for which unlock cannot wait: that waits for
# the root device, which may be a volume of ours. So this waits for the card alone, if
# dracut is to bring one up at all.

[ -s /etc/udev/rules.d/90-net.rules ] || [ -s /etc/udev/rules.d/91-default-net.rules ] || exit 0
patience=60
while [ "$patience" -gt 0 ]; do
    for card in /tmp/net.*.did-setup; do
        [ ! -e "$card" ] || exit 0
    done
    sleep 1
    patience=$((patience - 1))
done
