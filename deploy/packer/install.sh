#!/bin/sh
# Run as root on the machine that becomes an image: install.sh PACKAGE, with the
# configuration in /tmp/unlock.toml. A configuration that unlock refuses ends it, and so
# does what would keep the image from booting with its volumes open.
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
/usr/lib/unlock/rebuild

# Ubuntu's images try each kernel without an initramfs first: without unlock.
if grep -qs '^ *GRUB_FORCE_PARTUUID=.' /etc/default/grub /etc/default/grub.d/*.cfg; then
	echo "GRUB_FORCE_PARTUUID=" >/etc/default/grub.d/99-unlock.cfg
	update-grub
fi
# Amazon Linux powers off where the initramfs fails, whatever for: the instance store
# would be lost. (What unlock fails in never gets there.)
if command -v grubby >/dev/null && grubby --info=ALL | grep -q rd.emergency=poweroff; then
	grubby --update-kernel=ALL --remove-args=rd.emergency --args=rd.emergency=reboot
fi

unlockctl doctor --offline
rm -f "$1" /tmp/unlock.toml
