//go:build terraform

package deploytest

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"testing"

	"unlock/cmd/unlockctl/internal/policy"
)

// outputs are those of a module that needs no provider. make deploy-test brings the program.
func outputs(t *testing.T, module string, variables map[string]string) map[string]struct{ Value json.RawMessage } {
	t.Helper()
	terraform := os.Getenv("UNLOCK_TERRAFORM")
	if terraform == "" {
		t.Fatal("UNLOCK_TERRAFORM does not name a terraform; make deploy-test sets it")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(deploy+"terraform/"+module)); err != nil {
		t.Fatal(err)
	}
	apply := []string{"apply", "-auto-approve", "-no-color"}
	for name, value := range variables {
		apply = append(apply, "-var="+name+"="+value)
	}
	var out []byte
	for _, args := range [][]string{{"init", "-no-color"}, apply, {"output", "-json"}} {
		cmd := exec.Command(terraform, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE=/dev/null")
		var err error
		if out, err = cmd.Output(); err != nil {
			t.Fatalf("terraform %s: %v: %s", args[0], err, out)
		}
	}
	var all map[string]struct{ Value json.RawMessage }
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestTerraform holds the module's policies against those of unlockctl policy.
func TestTerraform(t *testing.T) {
	for name, source := range configs {
		t.Run(name, func(t *testing.T) {
			variables := map[string]string{"sealed": "true", "purpose": "secretfs", "key_arn": keyARN, "role_arn": roleARN, "bucket_arn": "arn:aws:s3:::a-bucket", "object": object}
			if name == "header" {
				variables["bucket_arn"], variables["sealed"] = "", "false"
			}
			all := outputs(t, "policies", variables)
			output := func(name string) json.RawMessage {
				var text string
				if err := json.Unmarshal(all[name].Value, &text); err != nil {
					t.Fatal(err)
				}
				return json.RawMessage(text)
			}
			c := parse(t, source)
			doc, err := policy.Role(c)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "role", output("role"), doc)
			same(t, "key", []json.RawMessage{output("key")}, policy.Key(c, keyARN, roleARN, policy.Attestation{}).Statement)
			if name == "s3" {
				doc, err := policy.Bucket(c, "a-bucket", roleARN)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "bucket", output("bucket"), doc)
			}
		})
	}
}

// TestTerraformFindings: the module fills the queries and patterns in, and has the rules
// that fit.
func TestTerraformFindings(t *testing.T) {
	for source := range configs {
		t.Run(source, func(t *testing.T) {
			words := bySource(source)
			all := outputs(t, "audit", map[string]string{"sealed": words["sealed"], "instance_store": "true", "endpoint": words["sealed"], "purpose": "secretfs",
				"object": object, "key_arn": keyARN, "key_id": "KEY", "role": "ROLE", "role_arn": roleARN, "bucket": words["bucket"], "endpoint_id": "vpce-1"})
			var queries, columns map[string]string
			var findings []string
			var rules map[string]any
			for name, v := range map[string]any{"queries": &queries, "columns": &columns, "findings": &findings, "patterns": &rules} {
				if err := json.Unmarshal(all[name].Value, v); err != nil {
					t.Fatal(err)
				}
			}
			if source == "header" {
				words["object"] = ""
			}
			for name, query := range queries {
				if want := filled(t, name+".sql", words); query != want {
					t.Errorf("query %s:\n%s\nwant\n%s", name, query, want)
				}
			}
			words = bySource(source)
			want := patterns(t, words)
			same(t, "patterns", texts(rules), want)
			for finding := range want {
				there := source == "s3" || finding != "elsewhere" && !slices.Contains(unsealed, finding)
				if slices.Contains(findings, finding) != there {
					t.Errorf("there is a rule for %s: %v, want %v", finding, !there, there)
				}
			}
			if len(queries) != 4 || len(columns) < 15 {
				t.Errorf("%d queries, %d columns", len(queries), len(columns))
			}
		})
	}
}
