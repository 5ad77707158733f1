//go:build terraform

package deploytest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"unlock/cmd/unlockctl/internal/policy"
)

// TestTerraform does the same with the module's policies, which need no provider.
// make deploy-test brings the program.
func TestTerraform(t *testing.T) {
	terraform := os.Getenv("UNLOCK_TERRAFORM")
	if terraform == "" {
		t.Fatal("UNLOCK_TERRAFORM does not name a terraform; make deploy-test sets it")
	}
	module, err := os.ReadFile("../../../../../deploy/terraform/policies/main.tf")
	if err != nil {
		t.Fatal(err)
	}
	for name, source := range configs {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "main.tf"), module, 0o600); err != nil {
				t.Fatal(err)
			}
			bucket, sealed := "arn:aws:s3:::a-bucket", "true"
			if name == "header" {
				bucket, sealed = "", "false"
			}
			var out []byte
			for _, args := range [][]string{{"init", "-no-color"},
				{"apply", "-auto-approve", "-no-color", "-var=sealed=" + sealed, "-var=purpose=secretfs", "-var=key_arn=" + keyARN,
					"-var=role_arn=" + roleARN, "-var=bucket_arn=" + bucket, "-var=object=" + object},
				{"output", "-json"}} {
				cmd := exec.Command(terraform, args...)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE=/dev/null")
				if out, err = cmd.Output(); err != nil {
					t.Fatalf("terraform %s: %v: %s", args[0], err, out)
				}
			}
			var outputs map[string]struct{ Value string }
			if err := json.Unmarshal(out, &outputs); err != nil {
				t.Fatal(err)
			}
			c := parse(t, source)
			doc, err := policy.Role(c)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "role", json.RawMessage(outputs["role"].Value), doc)
			same(t, "key", []json.RawMessage{json.RawMessage(outputs["key"].Value)}, policy.Key(c, keyARN, roleARN).Statement)
			if name == "s3" {
				doc, err := policy.Bucket(c, "a-bucket", roleARN)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "bucket", json.RawMessage(outputs["bucket"].Value), doc)
			}
		})
	}
}
