# shellcheck shell=sh
# What the scenarios of attestation do in the machine. Its disks are the root, the
# script, the EFI system partition, and where a scenario has it the tool.

# show_pcrs prints the PCRs of SHA-384 that a prediction has.
show_pcrs() {
	for pcr in 2 4 7 11 12 13; do
		echo "pcr $pcr $(cat /sys/class/tpm/tpm0/pcr-sha384/$pcr)"
	done
}

# measure_this compares this boot with what the tool predicts of the disk it came from.
measure_this() {
	mount -t securityfs securityfs /sys/kernel/security
	cp /dev/vdd /run/unlockctl
	chmod +x /run/unlockctl
	/run/unlockctl measure --this /dev/vdc "$@"
}

# door_closed: PCR 13 was extended before the system came up.
door_closed() {
	test -n "$(tr -d '0\n' </sys/class/tpm/tpm0/pcr-sha384/13)"
}

# ask_again ATTEST: root asks once more for the key of a volume, with the role's
# credentials, with a document or without.
ask_again() {
	by_hand /dev/vdd
	cat >/etc/unlock.toml <<-END
		timeout = "30s"
		[aws]
		ca_bundle = "/run/ca.pem"
		[key]
		source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
		kms_key = "$KEY"
		context = { purpose = "secretfs" }
		attest  = $1
		[[volume]]
		name       = "secretfs"
		device     = "instance-store"
		filesystem = "ext4"
		mount      = "/mnt/secretfs"
	END
	if test -e /dev/mapper/secretfs; then /run/unlockctl close secretfs; fi
	if /run/unlockctl open secretfs; then exit 1; fi
	stays_locked secretfs
	echo "refused with attest = $1"
}
