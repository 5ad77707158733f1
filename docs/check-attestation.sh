#!/bin/sh
# Run by an administrator, as root, on an EC2 instance whose volume was opened with an
# attested key: checks what attestation takes for granted of EC2 (attestation.md).
#
#	sh check-attestation.sh ESP KEY
#
# ESP is a directory, a partition or an image, as unlockctl measure takes it; KEY the ARN
# of the KMS key. It needs tpm2-tools, the AWS CLI, jq and unlockctl, and changes nothing.
# Exit status: 0 if all is as assumed, 1 if not.
# shellcheck disable=SC2317 # check calls functions by their names
set -u

if [ $# != 2 ]; then
	echo "usage: $0 ESP KEY" >&2
	exit 2
fi
esp=$1 key=$2 failed=0
region=$(echo "$key" | cut -d: -f4)
driverless=518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4

# check NAME COMMAND...: whether a command succeeds; what it says is shown where it does not.
check() {
	name=$1
	shift
	if said=$("$@" 2>&1); then
		echo "ok    $name"
	else
		printf 'FAIL  %s\n%s\n' "$name" "$said"
		failed=1
	fi
}

# tpm2_getcap has no name for it, but a bit that says "vendor's".
listed() { tpm2_getcap commands | grep -Eiq '20000001|V: *1'; }

no_owner() { tpm2_getcap properties-variable | grep -q 'ownerAuthSet: *0'; }

given() { jq -e '.result == "done" and .attestation != null' /run/unlock/status.json; }

pcr() { tr -d '\n' <"/sys/class/tpm/tpm0/pcr-sha384/$1" | tr A-F a-f; }

is() {
	echo "PCR $1 is $(pcr "$1")"
	[ "$(pcr "$1")" = "$2" ]
}

is_extended() { ! is 13 "$zero"; }

# refused COMMAND...: KMS says that a policy denies it, and not for want of something else.
refused() {
	"$@" >/dev/null 2>/run/check-attestation && echo "it was given" && return 1
	cat /run/check-attestation
	grep -q AccessDenied /run/check-attestation
}

recorded() {
	aws --region "$region" cloudtrail lookup-events --lookup-attributes AttributeKey=ResourceName,AttributeValue="$key" \
		--query 'Events[].CloudTrailEvent' --output json |
		jq -e '[.[] | fromjson | .additionalEventData.recipient | values] | first'
}

zero=$(printf '%096d' 0)
check "the TPM lists the vendor command" listed
check "the TPM's owner has no password" no_owner
check "this boot was given its key, by a password session and a document" given
check "this boot is the one predicted" unlockctl measure --this "$esp"
check "PCR 2: no driver was started before the image" is 2 "$driverless"
check "PCR 12: nothing came from beside the image" is 12 "$zero"
check "PCR 13 is extended" is_extended
check "KMS refuses a data key without a document" refused aws --region "$region" kms generate-data-key --key-id "$key" --key-spec AES_256
check "unlockctl doctor finds nothing amiss" unlockctl doctor --esp "$esp"
check "CloudTrail has the PCRs of the call (after up to 15 minutes)" recorded
rm -f /run/check-attestation
exit "$failed"
