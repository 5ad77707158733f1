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

	"unlock/test/lab"
	"unlock/test/vm"
)

// keyFile is on the root disk, for plain_open.
const keyFile = "/etc/keyfile"

// secrets looks for secrets in the memory of machines that are up: with unlock, and
// with what people use instead of it. The lines that report success are the comparison.
var secrets = []lab.Scenario{
	{
		Name: "secrets-s3", Config: s3Key + secretfs, Disks: blank(1), Machine: smallMemory,
		Boots: []lab.Boot{
			{Script: "write_file", Dump: true, Check: lab.All(lab.Formatted, exposes("first boot", nothing))},
			{Script: "read_file", Dump: true, Want: []string{lab.FileText}, Check: exposes("second boot", nothing)},
			{Before: putKeyFile, Append: "rd.unlock=0", Script: "plain_open", Dump: true, Want: []string{lab.FileText}, Check: exposes("cryptsetup open --key-file", asPlain)},
		},
	},
	{
		Name: "secrets-header", Config: headerKey + secretfs, Disks: blank(1), Machine: smallMemory,
		Boots: []lab.Boot{
			{Script: "write_file", Dump: true, Check: lab.All(lab.Formatted, exposes("first boot", nothing))},
			{Script: "read_file", Dump: true, Want: []string{lab.FileText}, Check: exposes("second boot", nothing)},
			{Before: putKeyFile, Append: "rd.unlock=0", Script: "plain_open", Dump: true, Want: []string{lab.FileText}, Check: exposes("cryptsetup open --key-file", asPlain)},
		},
	},
	{
		Name: "secrets-recipe", Config: s3Key + secretfs, Disks: blank(1), Machine: smallMemory,
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.Formatted},
			{Before: rootWithCLI, Append: "rd.unlock=0", Script: "recipe_open", Dump: true, Want: []string{lab.FileText}, Check: exposes("AWS CLI and cryptsetup", asRecipe)},
		},
	},
}

// smallMemory makes dumps small. The AWS CLI takes its time.
func smallMemory(_ *lab.Lab, m *vm.Machine) { m.Memory, m.Timeout = 512, 10*time.Minute }

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
func nothing(_ *lab.Lab, e exposure) error {
	if e.sights != nil {
		return fmt.Errorf("in memory: %v\n  %s", e, strings.Join(e.sights[:min(20, len(e.sights))], "\n  "))
	}
	return nil
}

// asPlain judges cryptsetup, by which the boots before are measured: unlock leaves
// no more copies of the volume key. The key file in the page cache shows that the
// search finds what is there.
func asPlain(l *lab.Lab, e exposure) error {
	if e.passphrase == 0 {
		return errors.New("the search does not find the key file in the page cache")
	}
	for _, before := range exposures(l) {
		if before.volumeKey > e.volumeKey {
			return fmt.Errorf("the memory held %d copies of the volume key, with cryptsetup %d", before.volumeKey, e.volumeKey)
		}
	}
	return nil
}

// asRecipe judges the recipe: it is there for comparison.
func asRecipe(_ *lab.Lab, e exposure) error {
	if e.sights == nil {
		return errors.New("the search finds nothing of the AWS CLI")
	}
	return nil
}

// exposures returns those of the boots before.
func exposures(l *lab.Lab) []exposure {
	all, _ := l.Kept.([]exposure)
	return all
}

// exposes searches the dump of the memory, the console and the disks.
func exposes(what string, judge func(*lab.Lab, exposure) error) lab.Judge {
	return func(l *lab.Lab) error {
		sealed, err := keysOf(context.Background(), l)
		if err != nil {
			return err
		}
		memory, err := os.ReadFile(l.File(lab.MemoryFile))
		if err != nil {
			return err
		}
		e := expose(l, newHaystack(memory), sealed)
		l.Note("\n        %s: %v", what, e)
		if e.volumeKey == 0 {
			return errors.New("the search does not find the volume key, which dm-crypt holds")
		}
		if err := judge(l, e); err != nil {
			return err
		}
		l.Kept = append(exposures(l), e)
		return nowhereElse(l, sealed)
	}
}

// expose counts.
func expose(l *lab.Lab, h haystack, sealed diskKeys) exposure {
	var e exposure
	look := func(count *int, what string, n needles) {
		found := h.find(n)
		*count += len(found)
		for _, s := range found {
			e.sights = append(e.sights, what+" "+s.String())
		}
	}
	look(&e.passphrase, "passphrase", sealed.passphrase)
	roles, sessions := l.Cloud.Issued()
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
func nowhereElse(l *lab.Lab, sealed diskKeys) error {
	places := map[string][]byte{"the console": []byte(l.Consoles.String())}
	for _, image := range l.Images() {
		raw, err := os.ReadFile(image)
		if err != nil {
			return err
		}
		places[filepath.Base(image)] = raw
	}
	for place, content := range places {
		h := newHaystack(content)
		if e := expose(l, h, sealed); e.sights != nil || e.volumeKey > 0 {
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

// keysOf asks cryptsetup and the simulated KMS.
func keysOf(ctx context.Context, l *lab.Lab) (k diskKeys, err error) {
	image := l.Images()[0]
	k.text = []byte(lab.Passphrase)
	k.passphrase = needlesOf(k.text)
	dump, err := lab.Output(ctx, nil, "", "cryptsetup", "luksDump", "--dump-json-metadata", image)
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
		dataKey, err := l.Cloud.Decrypt(t.Key, t.Ciphertext, t.Context)
		if err != nil {
			return k, err
		}
		k.text = []byte(base64.StdEncoding.EncodeToString(dataKey))
		k.passphrase = append(needlesOf(k.text), rawNeedles(dataKey)...)
	}
	file := l.File("volume-key")
	defer os.Remove(file)
	if err := lab.Command(ctx, string(k.text), "cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", file, "--key-file", "-", image); err != nil {
		return k, err
	}
	k.volumeKey, err = os.ReadFile(file)
	return k, err
}

// putKeyFile gives the machine a root with the passphrase in a file.
func putKeyFile(ctx context.Context, l *lab.Lab) error {
	sealed, err := keysOf(ctx, l)
	if err != nil {
		return err
	}
	return l.PutOnRoot(ctx, keyFile, sealed.text)
}

// rootWithCLI gives the machine a root with the AWS CLI.
func rootWithCLI(ctx context.Context, l *lab.Lab) (err error) {
	if l.Base.Root, err = vm.RealRoot(ctx, "awscli"); err != nil {
		return err
	}
	return l.PutOnRoot(ctx, "/etc/ca.pem", l.Cloud.CA())
}
