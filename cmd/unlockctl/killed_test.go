package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"unlock/test/ec2sim"
	"unlock/test/program"
)

// TestRotateKilled kills rotate at each system call that changes anything. After
// each, cryptsetup opens the volume with the passphrase in what is published then,
// and rotate run again finishes: that of the old ciphertext opens no more. Nor does one
// that has leaked, although somebody gave it a keyslot and a token that says that a
// rotation to it was interrupted. A short run kills at one change of four.
func TestRotateKilled(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		sealed  string
		planted bool
	}{
		"data key": {}, "S3": {sealed: "s3://a-bucket/key"}, "SSM": {sealed: "ssm:/unlock/key"}, "secret": {sealed: "secretsmanager:unlock/key"}, "file": {sealed: "file:sealed"},
		"data key, planted": {planted: true}, "S3, planted": {"s3://a-bucket/key", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			step := 1
			if testing.Short() {
				if step = 4; row.sealed != "file:sealed" {
					t.Skip("-short: of the places, a file alone")
				}
			}
			r := newRotation(t, row.sealed)
			if row.planted {
				r.plant(t)
			}
			disk, ciphertext := r.disk(t), r.ciphertext(t)
			killed := 0
			for at := 1; ; at += step {
				r.restore(t, disk, ciphertext)
				status := r.rotate(t, "kill-at", strconv.Itoa(at))
				if status != 0 && status != 137 {
					t.Fatalf("change %d: exit status %d: %s", at, status, &r.printed)
				}
				if !r.opens(t, r.published(t)) {
					t.Fatalf("killed at change %d: the volume does not open with what is published", at)
				}
				if status == 0 {
					break
				}
				killed++
				if status := r.rotate(t); status != 0 {
					t.Fatalf("killed at change %d, then going on: exit status %d: %s", at, status, &r.printed)
				}
				if !r.opens(t, r.published(t)) {
					t.Fatalf("killed at change %d, then finished: the volume does not open", at)
				}
				if r.opens(t, r.old) {
					t.Fatalf("killed at change %d, then finished: the old key still opens the volume", at)
				}
				if row.planted && r.opens(t, r.leaked) {
					t.Fatalf("killed at change %d, then finished: the leaked key opens the volume", at)
				}
			}
			if killed < 20/step {
				t.Errorf("killed at %d changes, want %d at least", killed, 20/step)
			}
			t.Logf("killed at %d changes", killed)
		})
	}
}

// rotation is a volume whose passphrase is to be replaced.
type rotation struct {
	cloud   *ec2sim.Cloud
	dir     string
	env     []string
	sealed  string
	key     string
	uuid    string // of the volume, once it was asked for
	old     []byte // the passphrase that is replaced
	leaked  []byte // one that was planted
	printed bytes.Buffer
}

func newRotation(t *testing.T, sealed string) *rotation {
	t.Helper()
	c, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.CreateBucket("a-bucket", "us-east-1")
	url, err := c.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	r := &rotation{cloud: c, dir: t.TempDir(), key: c.CreateKey()}
	r.env = append(os.Environ(), "AWS_ENDPOINT_URL="+url, "AWS_CA_BUNDLE="+filepath.Join(r.dir, "ca.pem"), "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID="+ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY="+ec2sim.SecretKey)
	for name, content := range map[string][]byte{"ca.pem": c.CA(), "typed": []byte("correct horse"), "disk": make([]byte, 20<<20)} {
		if err := os.WriteFile(filepath.Join(r.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.must(t, nil, "cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "disk", "typed")
	enroll := []string{"unlockctl", "enroll", "--kms-key", r.key, "--key-file", "typed", "disk"}
	if r.sealed = strings.Replace(sealed, "file:", "file:"+r.dir+"/", 1); sealed != "" {
		r.must(t, nil, "unlockctl", "seal", "--kms-key", r.key, r.sealed)
		enroll = append(enroll, "--sealed", r.sealed)
	}
	r.must(t, nil, enroll...)
	r.old = r.published(t)
	return r
}

// plant does what a writer of the disk can: it adds the token of a rotation to a
// passphrase that was in use once, with its true ciphertext, and a keyslot for it.
func (r *rotation) plant(t *testing.T) {
	t.Helper()
	plaintext, context := []byte("the passphrase of last year"), map[string]string(nil)
	r.leaked = plaintext
	if r.sealed == "" {
		plaintext, context = bytes.Repeat([]byte{7}, 32), r.context(t)
		r.leaked = []byte(base64.StdEncoding.EncodeToString(plaintext))
	}
	token, err := json.Marshal(map[string]any{"type": "unlock-rotate", "keyslots": []string{}, "v": 1, "ciphertext": r.cloud.Encrypt(r.key, plaintext, context)})
	if err != nil {
		t.Fatal(err)
	}
	r.must(t, token, "cryptsetup", "token", "import", "disk")
	if err := os.WriteFile(filepath.Join(r.dir, "leaked"), r.leaked, 0o600); err != nil {
		t.Fatal(err)
	}
	r.must(t, nil, "cryptsetup", "luksAddKey", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "typed", "disk", "leaked")
}

// context of the published ciphertext.
func (r *rotation) context(t *testing.T) map[string]string {
	t.Helper()
	if r.sealed != "" {
		return nil
	}
	if r.uuid == "" {
		r.uuid = strings.TrimSpace(string(r.must(t, nil, "cryptsetup", "luksUUID", "disk")))
	}
	return map[string]string{"unlock:set": r.uuid}
}

// must runs a program in the volume's directory and returns what it printed.
func (r *rotation) must(t *testing.T, stdin []byte, command ...string) []byte {
	t.Helper()
	cmd := r.command(t, stdin, command)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, &r.printed)
	}
	return out
}

func (r *rotation) command(t *testing.T, stdin []byte, command []string) *exec.Cmd {
	program.Need(t, command[0])
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, r.env, bytes.NewReader(stdin)
	r.printed.Reset()
	cmd.Stderr = &r.printed
	return cmd
}

// rotate replaces the passphrase, by way of a program in front if there is one, and
// returns the exit status.
func (r *rotation) rotate(t *testing.T, front ...string) int {
	t.Helper()
	args := append(front, "unlockctl", "rotate", "--passphrase", "--kms-key", r.key, "disk")
	if r.sealed != "" {
		args = append(args, "--sealed", r.sealed)
	}
	cmd := r.command(t, nil, args)
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// ciphertext returns what is published, as others than unlockctl read it.
func (r *rotation) ciphertext(t *testing.T) []byte {
	t.Helper()
	switch scheme, name, _ := strings.Cut(r.sealed, ":"); scheme {
	case "s3":
		return r.cloud.Object("a-bucket", "key")
	case "secretsmanager":
		return r.cloud.Secret(name)
	case "ssm":
		b, err := base64.StdEncoding.DecodeString(r.cloud.Parameter(name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	case "file":
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var header struct {
		Tokens map[string]struct {
			Type       string
			Ciphertext []byte
		}
	}
	if err := json.Unmarshal(r.must(t, nil, "cryptsetup", "luksDump", "--dump-json-metadata", "disk"), &header); err != nil {
		t.Fatal(err)
	}
	for _, token := range header.Tokens {
		if token.Type == "aws-kms" {
			return token.Ciphertext
		}
	}
	t.Fatal("cryptsetup finds no aws-kms token")
	return nil
}

// published returns the passphrase in it.
func (r *rotation) published(t *testing.T) []byte {
	t.Helper()
	plaintext, err := r.cloud.Decrypt(r.key, r.ciphertext(t), r.context(t))
	if err != nil {
		t.Fatal(err)
	}
	if r.sealed == "" {
		return []byte(base64.StdEncoding.EncodeToString(plaintext))
	}
	return plaintext
}

// opens asks cryptsetup whether a passphrase opens the volume.
func (r *rotation) opens(t *testing.T, passphrase []byte) bool {
	t.Helper()
	cmd := r.command(t, passphrase, []string{"cryptsetup", "open", "--test-passphrase", "--key-file=-", "disk"})
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); err != nil && code != 2 { // cryptsetup(8): no permission, a wrong passphrase
		t.Fatalf("cryptsetup: exit status %d: %s", code, &r.printed)
	}
	return err == nil
}

func (r *rotation) disk(t *testing.T) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// restore puts volume and ciphertext back.
func (r *rotation) restore(t *testing.T, disk, ciphertext []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, "disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const piece = 64 << 10
	buf := make([]byte, piece)
	for at := 0; at < len(disk); at += piece { // most of it is as it was
		want := disk[at:min(at+piece, len(disk))]
		if _, err := f.ReadAt(buf[:len(want)], int64(at)); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(buf[:len(want)], want) {
			continue
		}
		if _, err := f.WriteAt(want, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	switch scheme, name, _ := strings.Cut(r.sealed, ":"); scheme {
	case "s3":
		r.cloud.PutObject("a-bucket", "key", ciphertext)
	case "secretsmanager":
		r.cloud.PutSecret(name, ciphertext)
	case "ssm":
		r.cloud.PutParameter(name, base64.StdEncoding.EncodeToString(ciphertext))
	case "file":
		if err := os.WriteFile(name, ciphertext, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
