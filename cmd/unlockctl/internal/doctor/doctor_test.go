package doctor_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/doctor"
	"unlock/cmd/unlockctl/internal/measure"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/ec2/tpm"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/secret"
	"unlock/test/ec2sim"
	"unlock/test/nitrotpm"
	"unlock/test/program"
)

// instance is a healthy one, into which faults are planted.
type instance struct {
	t      *testing.T
	dir    string
	cloud  *ec2sim.Cloud
	key    string
	disk   block.Disk // whose volume is sealed
	header block.Disk // whose volume has its key in the header
	disks  []block.Disk
	doctor doctor.Doctor
	config string
	imds   map[string]string // path to answer; "PUT" for the token
	image  map[string]string
	tpm    *nitrotpm.TPM // of attest
	open   bool          // nothing has extended its PCR 13
}

const setUUID = "11111111-2222-3333-4444-555555555555"

// sim is one simulated AWS for all tests, in whose environment they run: they are
// not parallel.
func newInstance(t *testing.T) *instance {
	t.Helper()
	c, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	url, err := c.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{t: t, dir: t.TempDir(), cloud: c, key: c.CreateKey()}
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_CA_BUNDLE": i.write("aws-ca.pem", string(c.CA())),
		"AWS_ACCESS_KEY_ID": ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY": ec2sim.SecretKey,
	} {
		t.Setenv(name, value)
	}
	i.imds = map[string]string{"PUT": "a token", "iam/security-credentials/": "unlock-demo", "iam/security-credentials/unlock-demo": `{"Code":"Success"}`}
	server := httptest.NewServer(http.HandlerFunc(i.answer))
	t.Cleanup(server.Close)

	c.PutObject("a-bucket", "key", c.Encrypt(i.key, []byte("correct horse battery staple"), map[string]string{"purpose": "test"}))
	i.disk, i.header = i.volume("vdb", nil), i.volume("vdc", &luks.KMSToken{
		Version: 1, Key: i.key, Ciphertext: c.Encrypt(i.key, bytes.Repeat([]byte{7}, 32), map[string]string{"unlock:set": setUUID})})
	i.disks = []block.Disk{i.disk, i.header}
	i.config = fmt.Sprintf(`[aws.endpoint]
imds = %q
[key]
source  = "s3://a-bucket/key"
kms_key = %q
context = { purpose = "test" }
[[volume]]
name       = "sealed"
device     = "serial=SEALED"
format     = "blank"
filesystem = "ext4"
[[volume]]
name   = "header"
device = "serial=HEADER"
key    = { source = "header", kms_key = %q }
`, server.URL, i.key, i.key)
	i.write("modules/modules.dep", "kernel/drivers/md/dm-crypt.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\nkernel/drivers/net/ena.ko.xz:\n")
	i.write("modules/modules.builtin", "kernel/crypto/xts.ko\n")
	i.write("bin/mke2fs", "#!/bin/sh\n")
	i.write("unlock", "the program")
	i.image = map[string]string{"usr/lib/unlock/unlock": "the program", "lib/modules/dm-crypt.ko.xz": "", "lib/modules/dm-mod.ko.xz": ""}
	i.doctor = doctor.Doctor{
		Config: filepath.Join(i.dir, "unlock.toml"), Unlock: filepath.Join(i.dir, "unlock"), Image: filepath.Join(i.dir, "image"),
		Modules: filepath.Join(i.dir, "modules"), Bin: []string{filepath.Join(i.dir, "bin")},
		Disks:  func() ([]block.Disk, error) { return i.disks, nil },
		Active: func(string) (string, error) { return "", nil },
		Account: func(ctx context.Context, c *config.Config) (*account.Account, error) {
			return account.New(ctx, account.Options{AWS: c.AWS})
		},
		Resolve: func(context.Context, string) error { return nil },
	}
	return i
}

func (i *instance) write(name, text string) string {
	i.t.Helper()
	file := filepath.Join(i.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		i.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		i.t.Fatal(err)
	}
	return file
}

// replace edits the configuration.
func (i *instance) replace(old, new string) {
	i.t.Helper()
	if !strings.Contains(i.config, old) {
		i.t.Fatalf("%q is not in the configuration", old)
	}
	i.config = strings.Replace(i.config, old, new, 1)
}

// volume makes a LUKS volume in a file that stands for a disk.
func (i *instance) volume(name string, token *luks.KMSToken) block.Disk {
	i.t.Helper()
	const size = 20 << 20
	path := i.write(name, "")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		i.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		i.t.Fatal(err)
	}
	o := luks.FormatOptions{UUID: setUUID, SectorSize: 512, KMS: token}
	if _, err := luks.Format(f, size, secret.Take([]byte("correct horse battery staple")), o); err != nil {
		i.t.Fatal(err)
	}
	serial := map[string]string{"vdb": "SEALED", "vdc": "HEADER"}[name]
	return block.Disk{Name: name, Path: path, Size: size, SectorSize: 512, Serial: serial}
}

func (i *instance) answer(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		if i.imds["PUT"] == "" {
			http.Error(w, "", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, i.imds["PUT"])
		return
	}
	text, ok := i.imds[strings.TrimPrefix(r.URL.Path, "/latest/meta-data/")]
	switch {
	case !ok:
		http.Error(w, "", http.StatusNotFound)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != i.imds["PUT"] && i.imds["v1"] == "":
		http.Error(w, "", http.StatusUnauthorized)
	default:
		fmt.Fprint(w, text)
	}
}

// examine builds what the plants have left and asks the doctor.
func (i *instance) examine() []doctor.Finding {
	i.t.Helper()
	if i.config != "" {
		i.write("unlock.toml", i.config)
	}
	if i.image != nil {
		if _, ok := i.image["etc/unlock.toml"]; !ok {
			i.image["etc/unlock.toml"] = i.config
		}
		i.write("image", string(archive(i.t, i.image)))
	}
	return i.doctor.Examine(i.t.Context())
}

// archive is a cpio archive, compressed.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	entry := func(name, text string) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, 0o100644, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name)+1, 0, name)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.WriteString(text)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	for name, text := range files {
		if text != "-" {
			entry(name, text)
		}
	}
	entry("TRAILER!!!", "")
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	early := []byte("070701") // a first archive, of microcode, as distributions have it
	early = fmt.Appendf(early, "%0104x", 11)
	early = append(early[:94], "0000000b00000000TRAILER!!!\x00"...)
	early = append(early, make([]byte, 512-len(early))...)
	return append(early, w.EncodeAll(b.Bytes(), nil)...)
}

func TestHealthy(t *testing.T) {
	for _, f := range newInstance(t).examine() {
		if f.State != doctor.OK {
			t.Errorf("%+v", f)
		}
	}
}

// plantedFault is a fault and the finding that it must lead to.
type plantedFault struct {
	plant func(i *instance)
	check string
	state doctor.State
	text  string
}

// among reports whether the finding is there, and expects that, and a hint.
func (p *plantedFault) among(t *testing.T, found []doctor.Finding) bool {
	t.Helper()
	for _, f := range found {
		if f.Check == p.check && f.State == p.state && strings.Contains(f.Detail, p.text) {
			if f.Hint == "" {
				t.Errorf("no hint: %+v", f)
			}
			return true
		}
	}
	t.Errorf("no finding %s %s %q in %+v", p.check, p.state, p.text, found)
	return false
}

func (i *instance) must(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

// TestFaults plants faults one by one; each must be found by the right check, which
// names it, and has something to do about it.
func TestFaults(t *testing.T) {
	fault := func(names ...string) func(i *instance) {
		return func(i *instance) { i.must(i.cloud.SetFaults(names...)) }
	}
	for name, row := range map[string]plantedFault{
		"no configuration": {func(i *instance) { i.config = "" }, "config", doctor.Fail, "no such file"},
		"unknown setting":  {func(i *instance) { i.replace("device ", "devise ") }, "config", doctor.Fail, `unknown setting "volume.devise"`},
		"no context": {func(i *instance) {
			i.replace("context = { purpose = \"test\" }", "")
			i.cloud.PutObject("a-bucket", "key", i.cloud.Encrypt(i.key, []byte("correct horse"), nil))
		}, "config", doctor.Warn, "no encryption context"},
		"ciphertext file":   {func(i *instance) { i.replace("s3://a-bucket/key", "file:/nowhere/key") }, "files", doctor.Fail, "/nowhere/key"},
		"authorities":       {func(i *instance) { i.replace("[key]", "[aws]\nca_bundle = \"/nowhere/ca\"\n[key]") }, "files", doctor.Fail, "/nowhere/ca"},
		"no mkfs":           {func(i *instance) { i.replace(`"ext4"`, `"xfs"`) }, "programs", doctor.Fail, "mkfs.xfs"},
		"no dm-crypt":       {func(i *instance) { i.write("modules/modules.dep", "kernel/ena.ko:\nkernel/dm-mod.ko:\n") }, "modules", doctor.Fail, "no dm-crypt"},
		"no network driver": {func(i *instance) { i.write("modules/modules.dep", "kernel/dm-crypt.ko:\nkernel/dm-mod.ko:\n") }, "modules", doctor.Fail, "network card"},
		"no such kernel":    {func(i *instance) { i.doctor.Modules = "/nowhere/6.1" }, "modules", doctor.Fail, "/nowhere/6.1"},
		"foreign disk":      {func(i *instance) { i.write("vdb", "precious"+strings.Repeat("\x00", 20<<20-8)) }, "disks", doctor.Fail, "it holds"},
		"damaged header": {func(i *instance) {
			f, err := os.OpenFile(i.disk.Path, os.O_RDWR, 0)
			if err != nil {
				i.t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("x"), 5000); err != nil {
				i.t.Fatal(err)
			}
		}, "disks", doctor.Warn, "damaged"},
		"missing disk": {func(i *instance) { i.disks = i.disks[1:] }, "disks", doctor.Fail, "no device serial=SEALED"},
		"no token": {func(i *instance) {
			i.replace("serial=HEADER", "serial=SEALED")
			i.replace("serial=SEALED", "serial=HEADER")
		}, "disks", doctor.Fail, "no aws-kms token"},
		"image without it":   {func(i *instance) { i.image["usr/lib/unlock/unlock"] = "-" }, "initramfs", doctor.Fail, "does not contain the program"},
		"old program":        {func(i *instance) { i.image["usr/lib/unlock/unlock"] = "older" }, "initramfs", doctor.Fail, "program unlock in"},
		"old configuration":  {func(i *instance) { i.image["etc/unlock.toml"] = "older" }, "initramfs", doctor.Fail, "unlock.toml in"},
		"image sans module":  {func(i *instance) { i.image["lib/modules/dm-crypt.ko.xz"] = "-" }, "initramfs", doctor.Fail, "kernel module dm-crypt"},
		"no image":           {func(i *instance) { i.image = nil; i.write("image", "garbage") }, "initramfs", doctor.Fail, "not an initramfs"},
		"IMDS disabled":      {func(i *instance) { i.imds["PUT"] = "" }, "imds", doctor.Fail, "disabled"},
		"IMDSv1":             {func(i *instance) { i.imds["v1"] = "on"; i.imds["instance-id"] = "i-0123" }, "imds", doctor.Warn, "IMDSv1 answers"},
		"no role":            {func(i *instance) { delete(i.imds, "iam/security-credentials/") }, "role", doctor.Fail, "no role"},
		"role without trust": {func(i *instance) { delete(i.imds, "iam/security-credentials/unlock-demo") }, "role", doctor.Fail, "no credentials"},
		"no identity":        {func(i *instance) { i.replace(`"test" }`, `"${instance-id}" }`) }, "imds", doctor.Fail, "who the instance is"},
		"another instance's": {func(i *instance) {
			i.replace(`"test" }`, `"${instance-id}" }`)
			i.imds["/latest/dynamic/instance-identity/document"] = identity
		}, "kms", doctor.Fail, "InvalidCiphertextException"},
		"DNS": {func(i *instance) {
			i.doctor.Resolve = func(_ context.Context, host string) error { return errors.New("lookup " + host + ": no such host") }
		}, "dns", doctor.Fail, "no such host"},
		"unknown authority":    {fault("tls-unknown-ca"), "tls", doctor.Fail, "unknown authority"},
		"expired certificate":  {fault("tls-expired"), "tls", doctor.Fail, "expired"},
		"clock":                {fault("clock-skew:20m"), "clock", doctor.Fail, "20m"},
		"object missing":       {fault("s3-404"), "s3", doctor.Fail, "NoSuchKey"},
		"object denied":        {fault("s3-403"), "s3", doctor.Fail, "AccessDenied"},
		"secret missing":       {func(i *instance) { i.replace("s3://a-bucket/key", "secretsmanager:nowhere") }, "secretsmanager", doctor.Fail, "ResourceNotFoundException"},
		"parameter missing":    {func(i *instance) { i.replace("s3://a-bucket/key", "ssm:/nowhere") }, "ssm", doctor.Fail, "ParameterNotFound"},
		"key denied":           {fault("kms-denied"), "kms", doctor.Fail, "AccessDenied"},
		"key disabled":         {fault("kms-disabled"), "kms", doctor.Fail, "DisabledException"},
		"key pending deletion": {fault("kms-pending-deletion"), "kms", doctor.Fail, "pending deletion"},
		"no such key":          {func(i *instance) { i.replace(i.key, strings.Replace(i.key, "key/", "key/0", 1)) }, "kms", doctor.Fail, "NotFoundException"},
		"another context":      {func(i *instance) { i.replace(`purpose = "test"`, `purpose = "other"`) }, "kms", doctor.Fail, "InvalidCiphertextException"},
		"under another key":    {func(i *instance) { i.replace(i.key, i.cloud.CreateKey()) }, "kms", doctor.Fail, "IncorrectKeyException"},
		"token of another key": {func(i *instance) { i.config = strings.ReplaceAll(i.config, i.key, i.cloud.CreateKey()) }, "kms", doctor.Fail, "not in kms_key"},
		"token of another set": {func(i *instance) {
			i.header = i.volume("vdc", &luks.KMSToken{Version: 1, Key: i.key, Ciphertext: i.cloud.Encrypt(i.key, []byte("x"), nil)})
		}, "kms", doctor.Fail, "the header of volume header"},
		"new key not allowed": {func(i *instance) {
			i.replace("format     = \"blank\"", "")
			i.config += "format = \"blank\"\n"
			fault("kms-denied")(i)
		}, "kms", doctor.Fail, "GenerateDataKey"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t)
			row.plant(i)
			found := i.examine()
			if got := doctor.Failed(found); row.among(t, found) && got != (row.state == doctor.Fail) {
				t.Errorf("Failed = %v", got)
			}
		})
	}
}

const identity = `{"instanceId":"i-0123456789abcdef0","accountId":"111122223333","region":"us-east-1","imageId":"ami-0123456789abcdef0"}`

// TestNamedContext: a context that names the instance is the one that the boot will have.
func TestNamedContext(t *testing.T) {
	i := newInstance(t)
	i.imds["/latest/dynamic/instance-identity/document"] = identity
	i.replace(`"test" }`, `"${region}/${account}/${instance-id} ${volume}" }`)
	i.cloud.PutObject("a-bucket", "key", i.cloud.Encrypt(i.key, []byte("correct horse battery staple"),
		map[string]string{"purpose": "us-east-1/111122223333/i-0123456789abcdef0 sealed"}))
	found := i.examine()
	if doctor.Failed(found) {
		t.Errorf("found %+v", found)
	}
	for _, f := range found {
		if f.Check == "imds" && strings.Contains(f.Detail, "the instance is i-0123456789abcdef0") {
			return
		}
	}
	t.Errorf("nobody says who the instance is: %+v", found)
}

// attest has the sealed volume's key attested, on a machine with a NitroTPM whose next
// boot is measured, under a policy for that.
func (i *instance) attest() {
	i.t.Helper()
	i.replace("context = { purpose = \"test\" }", "attest  = true\ncontext = { purpose = \"test\" }")
	i.replace("key    = { source = \"header\", kms_key = \""+i.key+"\" }", "key    = { source = \"header\", attest = true, kms_key = \""+i.key+"\" }")
	i.write("modules/modules.builtin", "kernel/crypto/xts.ko\nkernel/drivers/char/tpm/tpm_crb.ko\n")
	program.Need(i.t, "swtpm")
	authority, err := nitrotpm.NewAuthority()
	if err != nil {
		i.t.Fatal(err)
	}
	i.tpm = nitrotpm.New(i.t.TempDir(), authority)
	i.doctor.TPM = func(ctx context.Context) (*tpm.TPM, error) {
		conn, err := i.tpm.Dial(ctx)
		if err != nil {
			return nil, err
		}
		t := tpm.New(conn)
		if !i.open {
			_, err = t.Extend(ctx, 13, "unlock: key released")
		}
		return t, err
	}
	uki, err := os.ReadFile("../../testdata/uki.efi")
	if err != nil {
		i.t.Fatal(err)
	}
	i.doctor.ESP = filepath.Join(i.dir, "esp")
	withCommandLine(uki, "ro nohibernate")
	i.write("esp/EFI/BOOT/BOOTX64.EFI", string(uki))
	image, err := measure.Read("uki", uki)
	if err != nil {
		i.t.Fatal(err)
	}
	p, err := measure.Predict([]*measure.Image{image}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	i.allow(p.PCRs["4"])
}

// commandLine gives the image on the ESP another command line.
func (i *instance) commandLine(text string) {
	file := filepath.Join(i.dir, "esp/EFI/BOOT/BOOTX64.EFI")
	uki, err := os.ReadFile(file)
	i.must(err)
	withCommandLine(uki, text)
	i.must(os.WriteFile(file, uki, 0o600))
}

// withCommandLine changes a unified image's command line.
func withCommandLine(uki []byte, text string) {
	header := uki[bytes.Index(uki, []byte(".cmdline")):]
	binary.LittleEndian.PutUint32(header[8:], uint32(len(text)))
	copy(uki[binary.LittleEndian.Uint32(header[20:]):], text)
}

// allow gives the key a policy for a PCR 4, which refuses all else.
func (i *instance) allow(pcr4 string) {
	i.cloud.SetKeyPolicy(i.key, i.policy(pcr4, `,"kms:RecipientAttestation:NitroTPMPCR2":["00"],"kms:RecipientAttestation:NitroTPMPCR12":["00"],"kms:RecipientAttestation:NitroTPMPCR13":["00"]`))
}

func (i *instance) policy(pcr4, others string) string {
	const key = "kms:RecipientAttestation:NitroTPMPCR4"
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/unlock-demo"},"Action":"kms:Decrypt","Resource":"*","Condition":{"StringEqualsIgnoreCase":{%q:[%q]%s}}},
		{"Effect":"Deny","Principal":"*","Action":["kms:Decrypt","kms:GenerateDataKey"],"Resource":"*","Condition":{"StringNotEqualsIgnoreCase":{%q:[%q]}}}]}`, key, pcr4, others, key, pcr4)
}

func TestAttested(t *testing.T) {
	i := newInstance(t)
	i.attest()
	var seen []string
	for _, f := range i.examine() {
		if f.State != doctor.OK {
			t.Errorf("%+v", f)
		}
		seen = append(seen, f.Check+": "+f.Detail)
	}
	for _, want := range []string{"tpm: i-0123456789abcdef0-tpm0000000000000000 attests", "tpm: PCR 13 is extended", "unified kernel image with systemd-stub 257.9-1; the next boot's PCR 4 is ",
		"attest: s3://a-bucket/key: KMS refuses it without attestation", "attest: the header of volume header: KMS refuses it", "has the next boot's PCR 4, among 1"} {
		if !strings.Contains(strings.Join(seen, "\n"), want) {
			t.Errorf("no finding %q in %q", want, seen)
		}
	}
}

// TestAttestedFaults are what attested keys can lack.
func TestAttestedFaults(t *testing.T) {
	fault := func(names ...string) func(i *instance) {
		return func(i *instance) { i.must(i.tpm.SetFaults(names...)) }
	}
	for name, row := range map[string]plantedFault{
		"no TPM": {func(i *instance) {
			i.doctor.TPM = func(ctx context.Context) (*tpm.TPM, error) {
				return nil, hint.New("there is no TPM", "launch it with one")
			}
		}, "tpm", doctor.Fail, "there is no TPM"},
		"no vendor command": {fault("no-vendor-command"), "tpm", doctor.Fail, ""},
		"owner's password":  {fault("owner-auth"), "tpm", doctor.Fail, ""},
		"no space":          {fault("nv-full"), "tpm", doctor.Fail, "8192"},
		"PCR 13 is open":    {func(i *instance) { i.open = true }, "tpm", doctor.Warn, "PCR 13 is not extended"},
		"no program":        {func(i *instance) { i.write("esp/EFI/BOOT/BOOTX64.EFI", "MZ") }, "measure", doctor.Fail, "no program for UEFI"},
		"no boot loader":    {func(i *instance) { i.doctor.ESP = i.dir }, "measure", doctor.Fail, "which a new machine starts"},
		"another image":     {func(i *instance) { i.allow(strings.Repeat("ab", 48)) }, "policy", doctor.Fail, "does not have the next boot's PCR 4"},
		"PCR 4 alone":       {func(i *instance) { i.cloud.SetKeyPolicy(i.key, i.policy(strings.Repeat("ab", 48), "")) }, "policy", doctor.Warn, "without PCR 12"},
		"a file for another": {func(i *instance) {
			i.write("policy.json", i.policy(strings.Repeat("ab", 48), ""))
			i.doctor.Policy, i.doctor.Offline = filepath.Join(i.dir, "policy.json"), true
		}, "policy", doctor.Fail, "does not have the next boot's PCR 4"},
		"an index is left": {func(i *instance) { i.must(i.tpm.Leave(i.t.Context(), 0x1801234, 1<<2|1<<18, 8192)) }, "tpm", doctor.Warn, "NV index 0x1801234 of 8192 bytes has been left behind"},
		"no driver":        {func(i *instance) { i.write("modules/modules.builtin", "kernel/crypto/xts.ko\n") }, "tpm", doctor.Fail, "no driver for a TPM"},
		"no policy":        {func(i *instance) { i.cloud.SetKeyPolicy(i.key, "") }, "attest", doctor.Fail, "KMS gives the key without attestation"},
		"hibernation":      {func(i *instance) { i.commandLine("ro") }, "measure", doctor.Fail, "would resume a system that hibernated"},
		"variables of the firmware": {func(i *instance) {
			i.doctor.System = filepath.Join(i.dir, "root")
			i.write("root/usr/bin/dracut", "")
		}, "measure", doctor.Warn, "SystemdOptions"},
		"no PCR 2": {func(i *instance) {
			i.cloud.SetKeyPolicy(i.key, i.policy(strings.Repeat("ab", 48), `,"kms:RecipientAttestation:NitroTPMPCR12":["00"],"kms:RecipientAttestation:NitroTPMPCR13":["00"]`))
		}, "policy", doctor.Warn, "without PCR 2"},
		"no EFI partition": {func(i *instance) { i.doctor.ESP = "" }, "measure", doctor.Skip, "no EFI system partition"},
		"the key is deleted": {func(i *instance) {
			i.config = strings.ReplaceAll(i.config, i.key, strings.Replace(i.key, "key/", "key/0", 1))
		}, "kms", doctor.Fail, "NotFoundException"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t)
			i.attest()
			row.plant(i)
			row.among(t, i.examine())
		})
	}
}
