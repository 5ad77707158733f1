package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"unlock/test/vm"
)

// What the machine does for a dump of its memory: the last line of the script waits
// until somebody, when the dump is written, presses Enter.
const (
	dumpMark   = "memory: dump now"
	dumpScript = "\necho '" + dumpMark + "'\nread -r answer\n"
	memoryFile = "memory"
)

// plainOpen opens the disk without unlock, with a key file on the root disk.
const (
	keyFile   = "/etc/keyfile"
	plainOpen = `
cryptsetup open --key-file ` + keyFile + ` /dev/nvme0n1 secretfs
mount /dev/mapper/secretfs /mnt/secretfs
cat /mnt/secretfs/file
`
)

// recipe is what the AWS Security Blog does after the boot: the AWS CLI fetches and
// decrypts, a shell variable holds the passphrase, a pipe brings it to cryptsetup.
const recipe = `
busybox ip link set eth0 up
printf '#!/bin/sh\n[ "$1" = bound ] || exit 0\nbusybox ip addr add "$ip/$mask" dev "$interface"\nbusybox ip route add default via "$router"\necho "nameserver $dns" >/etc/resolv.conf\n' >/run/lease
chmod 755 /run/lease
busybox udhcpc -q -n -i eth0 -s /run/lease
export AWS_CA_BUNDLE=/etc/ca.pem
cd /run
aws --region us-east-1 s3 cp s3://` + bucket + "/" + object + ` LuksInternalStorageKey
LuksClearTextKey=$(aws --region us-east-1 kms decrypt --ciphertext-blob fileb://LuksInternalStorageKey --encryption-context purpose=secretfs --output text --query Plaintext | base64 -d)
printf '%s' "$LuksClearTextKey" | cryptsetup open --key-file - /dev/nvme0n1 secretfs
unset LuksClearTextKey
rm LuksInternalStorageKey
mount /dev/mapper/secretfs /mnt/secretfs
cat /mnt/secretfs/file
`

// secrets looks for secrets in the memory of machines that are up: with unlock, and
// with what people use instead of it. The lines that report success are the comparison.
var secrets = []scenario{
	{
		name: "secrets-s3", config: s3Key + secretfs, disks: blank(1), machine: smallMemory,
		boots: []boot{
			{script: writeFile, dump: true, check: both(formatted, exposes("first boot", nothing))},
			{script: readFile, dump: true, want: []string{fileText}, check: exposes("second boot", nothing)},
			{before: putKeyFile, append: "rd.unlock=0", script: plainOpen, dump: true, want: []string{fileText}, check: exposes("cryptsetup open --key-file", asPlain)},
		},
	},
	{
		name: "secrets-header", config: headerKey + secretfs, disks: blank(1), machine: smallMemory,
		boots: []boot{
			{script: writeFile, dump: true, check: both(formatted, exposes("first boot", nothing))},
			{script: readFile, dump: true, want: []string{fileText}, check: exposes("second boot", nothing)},
			{before: putKeyFile, append: "rd.unlock=0", script: plainOpen, dump: true, want: []string{fileText}, check: exposes("cryptsetup open --key-file", asPlain)},
		},
	},
	{
		name: "secrets-recipe", config: s3Key + secretfs, disks: blank(1), machine: smallMemory,
		boots: []boot{
			{script: writeFile, check: formatted},
			{before: rootWithCLI, append: "rd.unlock=0", script: recipe, dump: true, want: []string{fileText}, check: exposes("AWS CLI and cryptsetup", asRecipe)},
		},
	},
}

// smallMemory makes dumps small. The AWS CLI takes its time.
func smallMemory(m *vm.Machine) { m.Memory, m.Timeout = 512, 10*time.Minute }

// exposure is how many copies of each secret are in a machine's memory.
type exposure struct {
	passphrase, secretKey, token, session, volumeKey int
	sights                                           []string // of all but the volume key
}

func (e exposure) String() string {
	return fmt.Sprintf("passphrase %d, AWS secret key %d, session token %d, IMDS token %d, volume key %d",
		e.passphrase, e.secretKey, e.token, e.session, e.volumeKey)
}

// nothing judges unlock.
func nothing(_ *lab, e exposure) error {
	if e.sights != nil {
		return fmt.Errorf("in memory: %v\n  %s", e, strings.Join(e.sights[:min(20, len(e.sights))], "\n  "))
	}
	return nil
}

// asPlain judges cryptsetup, by which the boots before are measured: unlock leaves
// no more copies of the volume key. The key file in the page cache shows that the
// search finds what is there.
func asPlain(l *lab, e exposure) error {
	if e.passphrase == 0 {
		return errors.New("the search does not find the key file in the page cache")
	}
	for _, before := range l.exposures {
		if before.volumeKey > e.volumeKey {
			return fmt.Errorf("the memory held %d copies of the volume key, with cryptsetup %d", before.volumeKey, e.volumeKey)
		}
	}
	return nil
}

// asRecipe judges the recipe: it is there for comparison.
func asRecipe(_ *lab, e exposure) error {
	if e.sights == nil {
		return errors.New("the search finds nothing of the AWS CLI")
	}
	return nil
}

// exposes searches the dump of the memory, the console and the disks.
func exposes(what string, judge func(*lab, exposure) error) judge {
	return func(l *lab) error {
		sealed, err := l.diskKeys(context.Background())
		if err != nil {
			return err
		}
		memory, err := os.ReadFile(l.file(memoryFile))
		if err != nil {
			return err
		}
		e := l.expose(newHaystack(memory), sealed)
		l.note("\n        %s: %v", what, e)
		if e.volumeKey == 0 {
			return errors.New("the search does not find the volume key, which dm-crypt holds")
		}
		if err := judge(l, e); err != nil {
			return err
		}
		l.exposures = append(l.exposures, e)
		return l.nowhereElse(sealed)
	}
}

// expose counts.
func (l *lab) expose(h haystack, sealed diskKeys) exposure {
	var e exposure
	look := func(count *int, what string, n needles) {
		found := h.find(n)
		*count += len(found)
		for _, s := range found {
			e.sights = append(e.sights, what+" "+s.String())
		}
	}
	look(&e.passphrase, "passphrase", sealed.passphrase)
	roles, sessions := l.cloud.Issued()
	for _, r := range roles {
		look(&e.secretKey, "AWS secret key", needlesOf([]byte(r.SecretKey)))
		look(&e.token, "session token", needlesOf([]byte(r.Token)))
	}
	for _, s := range sessions {
		look(&e.session, "IMDS token", needlesOf([]byte(s)))
	}
	// The kernel keeps either half of the key as it is, at the head of its schedule.
	half := len(sealed.volumeKey) / 2
	e.volumeKey = max(len(h.find(rawNeedles(sealed.volumeKey[:half]))), len(h.find(rawNeedles(sealed.volumeKey[half:]))))
	return e
}

// nowhereElse looks for keys on the console and on the disks.
func (l *lab) nowhereElse(sealed diskKeys) error {
	places := map[string][]byte{"the console": []byte(l.consoles.String())}
	for _, image := range l.images() {
		raw, err := os.ReadFile(image)
		if err != nil {
			return err
		}
		places[filepath.Base(image)] = raw
	}
	for place, content := range places {
		h := newHaystack(content)
		if e := l.expose(h, sealed); e.sights != nil || e.volumeKey > 0 {
			return fmt.Errorf("on %s: %v", place, e)
		}
	}
	return nil
}

// diskKeys is what opens the first disk.
type diskKeys struct {
	text       []byte  // the passphrase
	passphrase needles // of it, and of the data key that it is the text of
	volumeKey  []byte
}

// diskKeys asks cryptsetup and the simulated KMS.
func (l *lab) diskKeys(ctx context.Context) (k diskKeys, err error) {
	image := l.images()[0]
	k.text = []byte(passphrase)
	k.passphrase = needlesOf(k.text)
	dump, err := output(ctx, nil, "", "cryptsetup", "luksDump", "--dump-json-metadata", image)
	if err != nil {
		return k, err
	}
	var meta struct {
		Tokens map[string]struct {
			Type, Key  string
			Ciphertext []byte
			Context    map[string]string
		}
	}
	if err := json.Unmarshal(dump, &meta); err != nil {
		return k, err
	}
	for _, t := range meta.Tokens {
		if t.Type != "aws-kms" {
			continue
		}
		dataKey, err := l.cloud.Decrypt(t.Key, t.Ciphertext, t.Context)
		if err != nil {
			return k, err
		}
		k.text = []byte(base64.StdEncoding.EncodeToString(dataKey))
		k.passphrase = append(needlesOf(k.text), rawNeedles(dataKey)...)
	}
	file := l.file("volume-key")
	defer os.Remove(file)
	if err := tool(ctx, string(k.text), "cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", file, "--key-file", "-", image); err != nil {
		return k, err
	}
	k.volumeKey, err = os.ReadFile(file)
	return k, err
}

// putKeyFile gives the machine a root with the passphrase in a file.
func putKeyFile(ctx context.Context, l *lab) error {
	sealed, err := l.diskKeys(ctx)
	if err != nil {
		return err
	}
	return l.putOnRoot(ctx, keyFile, sealed.text)
}

// rootWithCLI gives the machine a root with the AWS CLI.
func rootWithCLI(ctx context.Context, l *lab) (err error) {
	if l.root, err = vm.RealRoot(ctx, "awscli"); err != nil {
		return err
	}
	return l.putOnRoot(ctx, "/etc/ca.pem", l.cloud.CA())
}

// putOnRoot gives the machine a root of its own with one more file.
func (l *lab) putOnRoot(ctx context.Context, file string, content []byte) error {
	root, source := l.file("root.img"), l.file("put")
	err := errors.Join(tool(ctx, "", "cp", "--sparse=always", l.root, root), os.WriteFile(source, content, 0o600))
	if err != nil {
		return err
	}
	defer os.Remove(source)
	l.root = root
	return tool(ctx, "", "debugfs", "-w", "-R", "write "+source+" "+file, root)
}
