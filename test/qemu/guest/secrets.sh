# shellcheck shell=sh
# What people do in place of unlock, whose traces in memory are compared with its own.

# plain_open opens the disk with a key file on the root disk.
plain_open() {
	cryptsetup open --key-file /etc/keyfile /dev/nvme0n1 secretfs
	mount /dev/mapper/secretfs /mnt/secretfs
	cat /mnt/secretfs/file
}

# recipe_open does what the AWS Security Blog does after the boot: the AWS CLI fetches
# and decrypts, a shell variable holds the passphrase, a pipe brings it to cryptsetup.
recipe_open() {
	busybox ip link set eth0 up
	cat >/run/lease <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
busybox ip addr add "$ip/$mask" dev "$interface"
busybox ip route add default via "$router"
echo "nameserver $dns" >/etc/resolv.conf
END
	chmod 755 /run/lease
	busybox udhcpc -q -n -i eth0 -s /run/lease
	export AWS_CA_BUNDLE=/etc/ca.pem
	cd /run || return
	aws --region us-east-1 s3 cp s3://an-internalstoragekeybucket/LuksInternalStorageKey LuksInternalStorageKey
	LuksClearTextKey=$(aws --region us-east-1 kms decrypt --ciphertext-blob fileb://LuksInternalStorageKey --encryption-context purpose=secretfs --output text --query Plaintext | base64 -d)
	printf '%s' "$LuksClearTextKey" | cryptsetup open --key-file - /dev/nvme0n1 secretfs
	unset LuksClearTextKey
	rm LuksInternalStorageKey
	mount /dev/mapper/secretfs /mnt/secretfs
	cat /mnt/secretfs/file
}
