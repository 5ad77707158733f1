package main

// byHand is what an operator does with unlockctl on a machine that runs. Its disk is
// the one behind the script's.
const byHand = `
cp /dev/vdc /run/unlockctl
chmod +x /run/unlockctl
cat >/run/ca.pem <<'END'
$CA
END
export AWS_CA_BUNDLE=/run/ca.pem
for card in /sys/class/net/[!l]*; do busybox ip link set "${card##*/}" up; busybox ip addr add 172.31.5.10/20 dev "${card##*/}"; done
busybox ip route add default via 172.31.0.1
echo "nameserver 172.31.0.2" >/etc/resolv.conf
# again HOW...: closes the volume and opens it by hand.
again() {
	dmsetup remove_all
	dmsetup remove_all
	test "$(dmsetup ls)" = "No devices found"
	/run/unlockctl recover --name again "$@" /dev/nvme1n1 /dev/nvme0n1
	mount -o ro /dev/mapper/again /mnt
	echo "$1: $(cat /mnt/file)"
	umount /mnt
}
`

// recovering opens a volume by each of the keys that people have at hand, with the
// credentials of the instance's role where AWS is asked.
var recovering = []scenario{{
	name: "recover", config: volume(s3Key, "ext4", atSecretfs), disks: blank(2), tool: true,
	boots: []boot{
		{script: writeStripe},
		{
			script: byHand + `
umount /mnt/secretfs
again --sealed=s3://an-internalstoragekeybucket/LuksInternalStorageKey --kms-key $KEY --context purpose=secretfs
printf %s '$PASSPHRASE' >/run/passphrase
/run/unlockctl enroll --kms-key $KEY --key-file /run/passphrase /dev/nvme0n1 /dev/nvme1n1
again --kms-key=$KEY
/run/unlockctl enroll --recovery-key --key-file /run/passphrase /dev/nvme0n1 /dev/nvme1n1 | tr -d '\n' >/run/paper
again --key-file=/run/paper
cryptsetup luksDump /dev/nvme0n1 | grep systemd-recovery
`,
			want: []string{
				"--sealed=s3://an-internalstoragekeybucket/LuksInternalStorageKey: " + fileText,
				"--kms-key=$KEY: " + fileText, "--key-file=/run/paper: " + fileText,
			},
		},
		{script: readStripe, want: []string{fileText}},
	},
}}
