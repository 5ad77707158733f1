#!/bin/sh
# Makes our package in versions 1 and 2, and a repository of the second, in the
# directory $1. Run by the scenarios of disk images, at the top of the source tree.
set -eu
for version in 1 2; do
	make -s release RELEASE_ARCHS=amd64 RELEASE_VERSION=$version >/dev/null
	cp bin/release/unlock_$version-1_amd64.deb "$1/$version.deb"
done
cd "$1"
dpkg-deb -f 2.deb >Packages
printf 'Filename: ./2.deb\nSize: %s\nSHA256: %s\n' "$(stat -c %s 2.deb)" "$(sha256sum <2.deb | cut -d' ' -f1)" >>Packages
