#!/bin/sh
# Run by chroot.sh in a system with unlock and its hooks: has its generator build
# images as an administrator does. build.sh FILE COMMAND [plain|thorough]
# FILE sets the generator up, COMMAND rebuilds all images. In /mnt are the text of
# FILE, the configuration and its files; images go there. Thorough: what comes before
# and after, and builds that must fail. Plain: an image from before, too.
set -eu
file=$1 command=$2 more=${3-}

# shellcheck disable=SC2086 # a command and its arguments
rebuild() { $command; }
keep() { cp /boot/initr* "/mnt/$1.img"; }
must_fail() { # WHY TEXT
	if rebuild >/mnt/output 2>&1; then
		echo "the image was rebuilt, though $1"
		exit 1
	fi
	cat /mnt/output
	grep -qF "$2" /mnt/output || {
		echo "the generator does not say: $2"
		exit 1
	}
	cmp /boot/initr* /mnt/with.img
}

cp /mnt/generator.conf "$file"
mkdir -p /etc/unlock
cp /mnt/key.bin /mnt/test-ca.pem /etc/unlock
echo "root:of-the-test-system" | chpasswd # for emergency_shell

if [ "$more" = plain ]; then
	rebuild
	keep plain
fi
if [ "$more" = thorough ]; then
	# The configuration as packages install it, and an earlier one that must not stay.
	echo "# as the packages install it" >/etc/unlock.toml
	rebuild
	keep unedited
	cp /mnt/old.toml /etc/unlock.toml
	rebuild
fi

cp /mnt/unlock.toml /etc/unlock.toml
rebuild
keep with

if [ "$more" = thorough ]; then
	rm /etc/unlock/key.bin
	must_fail "a file is missing" "unlock: /etc/unlock.toml: it names /etc/unlock/key.bin: no such file"
	cp /mnt/key.bin /etc/unlock
	cp /mnt/bad.toml /etc/unlock.toml
	must_fail "the configuration is wrong" "unlock: /etc/unlock.toml:$(wc -l </mnt/bad.toml): unknown setting \"volume.colour\""
	cp /mnt/unlock.toml /etc/unlock.toml
	# A package that is removed leaves its configuration.
	(cd / && xargs rm </mnt/installed)
	rebuild
	keep without
fi
