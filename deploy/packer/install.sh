#!/bin/sh
# Run as root on the machine that becomes an image: install.sh PACKAGE, with the
# configuration in /tmp/unlock.toml. A configuration that unlock refuses ends it.
set -eu

case $1 in
*.deb)
	apt-get -q update
	DEBIAN_FRONTEND=noninteractive apt-get -q -y install "$1"
	;;
*.rpm) dnf -q -y install "$1" ;;
*)
	echo "$1 is neither a deb nor an rpm" >&2
	exit 1
	;;
esac

install -m 644 /tmp/unlock.toml /etc/unlock.toml
/usr/lib/unlock/unlock needs
if command -v update-initramfs >/dev/null; then
	update-initramfs -u -k all
elif command -v dracut >/dev/null; then
	dracut -f --regenerate-all
else
	mkinitcpio -P
fi
rm -f "$1" /tmp/unlock.toml
