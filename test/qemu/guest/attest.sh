# shellcheck shell=sh
# What the scenarios of attestation do in the machine. Its disks are the root, the
# script, the EFI system partition, and where a scenario has it the tool.

# show_pcrs prints the PCRs of SHA-384 that a prediction has.
show_pcrs() {
	for pcr in 4 7 11 12 13; do
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
