# shellcheck shell=sh
# What the scenarios of the group volumes do in the machine.

# same_directory ONE OTHER: one directory under two names
same_directory() { test "$(stat -c %d:%i "$1")" = "$(stat -c %d:%i "$2")"; }

# below_mounts shows the root's own directories at /run/below.
below_mounts() {
	mkdir -p /run/below
	mount --bind / /run/below
}

# binds_made: the first boot of the scenario binds
binds_made() {
	mounted_with /mnt/secretfs ext4 rw,noatime
	test "$(stat -c '%a %U:%g' /mnt/secretfs)" = "711 daemon:34"
	dumpe2fs -h /dev/mapper/secretfs | grep 'Reserved block count: *0$'
	dumpe2fs -h /dev/mapper/secretfs | grep 'volume name: *data$'
	below_mounts
	for pair in /var/lib/containerd:containerd /etc/cron.daily:state/cron; do
		path=${pair%%:*}
		same_directory "$path" "/mnt/secretfs/${pair#*:}"
		test "$(stat -c '%a %u %g %Y' "$path")" = "$(stat -c '%a %u %g %Y' "/run/below$path")"
	done
	test -z "$(ls /var/lib/containerd)"
	test -n "$(ls /etc/cron.daily)"
	diff -r /etc/cron.daily /run/below/etc/cron.daily
	echo "$TEXT" >/var/lib/containerd/file
	rm /etc/cron.daily/*
	test -n "$(ls /run/below/etc/cron.daily)"
	sync
}

# binds_kept: the second. What was removed does not come again.
binds_kept() {
	cat /var/lib/containerd/file
	test -z "$(ls /etc/cron.daily)"
	same_directory /etc/cron.daily /mnt/secretfs/state/cron
	test "$(ls -A /mnt/secretfs/state)" = cron
}

# binds_covered: nothing can be written where the volume is not.
binds_covered() {
	for dir in /mnt/secretfs /var/lib/containerd /etc/cron.daily; do
		if touch "$dir/in-the-clear"; then exit 1; fi
	done
}

# seeded: the copy of /usr/share is whole, and nothing of earlier ones is left.
seeded() {
	same_directory /usr/share /mnt/secretfs/share
	below_mounts
	diff -r --no-dereference /usr/share /run/below/usr/share
	(cd /usr/share && find . -printf '%P %y %m %U %G %T@ %l\n' | sort) >/run/copy
	(cd /run/below/usr/share && find . -printf '%P %y %m %U %G %T@ %l\n' | sort) >/run/original
	diff /run/copy /run/original
	test "$(ls -A /mnt/secretfs)" = "lost+found
share"
}

# xfs_as_wanted: it has its quotas, and knows the stripe: 256 KiB, twice, in blocks of 512 bytes.
xfs_as_wanted() { grep 'logbsize=64k,sunit=512,swidth=1024,prjquota' /proc/mounts; }

# write_bound and bound_has_grown: files in directories that lie on secretfs
write_bound() {
	echo "$TEXT" >/var/lib/containerd/file
	echo "$TEXT" >/etc/cron.daily/file
	umount /var/lib/containerd /etc/cron.daily /mnt/secretfs
}
bound_has_grown() {
	cat /var/lib/containerd/file
	for path in /var/lib/containerd /etc/cron.daily; do
		same_directory "$path" "/mnt/secretfs/${path##*/}"
		cmp /var/lib/containerd/file "$path/file"
		test "$(df --output=size "$path")" = "$(df --output=size /mnt/secretfs)"
	done
	umount /var/lib/containerd /etc/cron.daily /mnt/secretfs
}

# has_quotas: of projects
has_quotas() { grep '^/dev/[^ ]* /mnt/quotas ext4 [^ ]*prjquota' /proc/mounts; }

# write_kept: a file for read_as
write_kept() {
	echo "$TEXT" >/mnt/secretfs/file
	umount /mnt/secretfs
}

# spoil_counts and spoil_root break the file system: so that it can be repaired safely,
# and so that it cannot.
spoil_counts() {
	umount /mnt/secretfs
	debugfs -w -R 'set_super_value state 2' /dev/mapper/secretfs
	debugfs -w -R 'set_inode_field lost+found links_count 7' /dev/mapper/secretfs
}
spoil_root() {
	umount /mnt/secretfs
	debugfs -w -R 'set_super_value state 2' /dev/mapper/secretfs
	debugfs -w -R 'clri <2>' /dev/mapper/secretfs
}

# bound_units: systemd knows what the initramfs has bound, and keeps it.
bound_units() {
	for turn in 1 2; do
		for path in /var/lib/containerd /etc/apt; do
			unit=$(systemd-escape --path --suffix=mount "$path")
			active "$unit"
			systemctl show -p Before "$unit" | grep -w local-fs.target
			test "$(findmnt -no PROPAGATION "$path")" = shared
			findmnt -no SOURCE "$path" | grep '^/dev/mapper/secretfs\['
			same_directory "$path" "/mnt/secretfs/${path##*/}"
		done
		active mnt-secretfs.mount
		test "$turn" = 2 || systemctl daemon-reload
		test "$turn" = 2 || systemctl isolate multi-user.target
	done
	test -n "$(ls /etc/apt)"
}

# write_shares and read_shares: cache and db are parts of secretfs.
write_shares() {
	for share in cache db; do
		dmsetup table "$share" | grep ' linear '
		mounted "$share"
		echo "$TEXT" >"/mnt/$share/file"
	done
	test -z "$(blkid -p -o value -s TYPE /dev/mapper/secretfs)"
	umount /mnt/cache /mnt/db
}
read_shares() {
	for share in cache db; do
		mounted "$share"
		echo "$share: $(cat "/mnt/$share/file")"
	done
}

# close_shares: with their whole they are closed, opened and recovered.
close_shares() {
	by_hand /dev/vdc
	of_s3 <<-END
		device     = "instance-store"
		[[volume]]
		name       = "cache"
		device     = "share:secretfs"
		size       = "40%"
		filesystem = "ext4"
		mount      = "/mnt/cache"
		[[volume]]
		name       = "db"
		device     = "share:secretfs"
		filesystem = "ext4"
		mount      = "/mnt/db"
	END
	read_shares
	if /run/unlockctl close db; then exit 1; fi
	if /run/unlockctl open db; then exit 1; fi
	tool close
	test "$(dmsetup ls)" = "No devices found"
	/run/unlockctl recover --name again --sealed=s3://an-internalstoragekeybucket/LuksInternalStorageKey --kms-key "$KEY" --context purpose=secretfs /dev/nvme1n1 /dev/nvme0n1
	mount -o ro /dev/mapper/again-db /mnt
	cat /mnt/file
	umount /mnt
	dmsetup remove again-cache again-db
	dmsetup remove again
	dmsetup remove again_0 again_1
	tool open
	tool open
	read_shares
	/run/unlockctl status
}

# node_directories: those of containerd and kubelet lie on the volume, and what is mounted
# below them is seen elsewhere, as kubelet wants it.
node_directories() {
	active containerd.service
	for path in /var/lib/containerd /var/lib/kubelet /var/log/pods; do
		findmnt -no SOURCE,FSTYPE,PROPAGATION "$path" | tr -s ' ' | grep "^/dev/mapper/k8s\[/${path##*/}\] xfs shared"
		active "$(systemd-escape --path --suffix=mount "$path")"
	done
	pod=/var/lib/kubelet/pods/5f3c6b1e-7a0d-4c7e-9d55-2b8f0c1d9e42/volumes
	log=/var/log/pods/default_web_5f3c6b1e-7a0d-4c7e-9d55-2b8f0c1d9e42/web
	data=$pod/kubernetes.io~empty-dir/data token=$pod/kubernetes.io~projected/kube-api-access-x7k2p
	if test -e $data/file; then
		echo "pod's file: $(cat $data/file)"
		cmp $data/file $log/0.log
	fi
	mkdir -p $data $token $log /var/log/containers /var/lib/kubelet/plugins_registry /var/lib/kubelet/device-plugins /var/lib/kubelet/pki
	echo "$TEXT" >$data/file
	echo "$TEXT" >$log/0.log
	ln -sf $log/0.log /var/log/containers/web_default_web.log
	unshare --mount --propagation slave sleep 600 &
	until test "$(readlink /proc/$!/ns/mnt)" != "$(readlink /proc/$$/ns/mnt)"; do sleep 1; done
	sleep 1
	mount -t tmpfs tmpfs $token
	grep " $token tmpfs " /proc/$!/mounts
	umount $token
	if grep " $token " /proc/$!/mounts; then exit 1; fi
	kill $!
}

# import_image gives containerd an image that holds nothing but busybox and a text.
import_image() {
	mkdir -p /run/image/root/bin
	busybox=$(command -v busybox)
	cp "$busybox" /run/image/root/bin/busybox
	for lib in $(ldd "$busybox" | grep -o '/[^ ]*'); do
		mkdir -p "/run/image/root${lib%/*}"
		cp "$lib" "/run/image/root$lib"
	done
	echo "$TEXT" >/run/image/root/text
	(
		cd /run/image || exit
		tar -C root -cf layer.tar .
		sum=$(sha256sum layer.tar)
		cat >config.json <<-END
			{"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:${sum%% *}"]}}
		END
		echo '[{"Config": "config.json", "RepoTags": ["example.com/busybox:1"], "Layers": ["layer.tar"]}]' >manifest.json
		tar -cf image.tar manifest.json config.json layer.tar
		ctr images import image.tar
	)
}

# run_container NAME: from that image
run_container() {
	ctr images list
	ctr run --rm example.com/busybox:1 "$1" /bin/busybox cat /text >"/run/$1"
	echo "in a container: $(cat "/run/$1")"
}

# confined_writes: nginx, in its domain, to its directories, which are labelled as the
# policy has it, and so is what else lies on the volume.
confined_writes() {
	test "$(getenforce)" = Enforcing
	test "$(tr -d '\000' </proc/1/attr/current)" = system_u:system_r:init_t:s0
	grep :httpd_t: "/proc/$(cat /run/nginx.pid)/attr/current"
	busybox wget -O /dev/null http://127.0.0.1/
	test -s /var/log/nginx/access.log
	for path in /var/log/nginx /var/lib/nginx /etc/apt /srv/cache; do
		findmnt -no SOURCE "$path" | grep '^/dev/mapper/secretfs\['
		restorecon -nvR "$path" >>/run/relabel
	done
	restorecon -nv /mnt/secretfs >>/run/relabel
	cat /run/relabel
	test ! -s /run/relabel
	ls -Zd /mnt/secretfs /var/log/nginx /var/log/nginx/* /var/lib/nginx /var/lib/nginx/* /etc/apt /srv/cache
	echo "$TEXT" >/var/log/nginx/kept
}

# nothing_denied: whatever the policy denies to Debian's own services, none of it is about
# a volume, nor about what has no label.
nothing_denied() {
	journalctl -b -o cat | grep 'avc: *denied' | sort -u >/run/denied || true
	cat /run/denied
	if grep -E 'dev="dm-|unlabeled_t|unlock|nginx' /run/denied; then exit 1; fi
}
