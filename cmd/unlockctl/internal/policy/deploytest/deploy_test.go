package deploytest

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"unlock/cmd/unlockctl/internal/policy"
	"unlock/internal/config"
)

const (
	keyARN  = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	roleARN = "arn:aws:iam::111122223333:role/unlock"
	object  = "LuksInternalStorageKey"
)

// configs by the parameter Source.
var configs = map[string]string{"s3": "s3://a-bucket/" + object, "header": "header"}

func parse(t *testing.T, source string) *config.Config {
	t.Helper()
	c, err := config.Parse("unlock.toml", []byte(`
[key]
source  = "`+source+`"
kms_key = "`+keyARN+`"
context = { purpose = "secretfs" }
[[volume]]
name   = "secretfs"
device = "instance-store"
format = "blank"
`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCloudFormation holds the template's policies against those of unlockctl policy.
func TestCloudFormation(t *testing.T) {
	data, err := os.ReadFile("../../../../../deploy/cloudformation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, source := range configs {
		t.Run(name, func(t *testing.T) {
			var root yaml.Node
			if err := yaml.Unmarshal(data, &root); err != nil {
				t.Fatal(err)
			}
			s := stack{sealed: name == "s3", values: map[string]string{"Purpose": "secretfs", "Object": object,
				"Key.Arn": keyARN, "Role.Arn": roleARN, "Bucket.Arn": "arn:aws:s3:::a-bucket"}}
			template := s.resolve(root.Content[0]).(map[string]any)
			at := func(resource string, path ...string) any {
				v := template["Resources"].(map[string]any)[resource]
				for _, p := range append([]string{"Properties"}, path...) {
					v = v.(map[string]any)[p]
				}
				return v
			}
			c := parse(t, source)
			doc, err := policy.Role(c)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "role", at("RolePolicy", "PolicyDocument"), doc)
			key := at("Key", "KeyPolicy", "Statement").([]any)
			same(t, "key", key[1:], policy.Key(c, keyARN, roleARN, policy.Attestation{}).Statement) // the first is the account's
			if s.sealed {
				doc, err := policy.Bucket(c, "a-bucket", roleARN)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "bucket", at("BucketPolicy", "PolicyDocument"), doc)
			}
		})
	}
}

// TestAudit: the trail covers all Regions and is the only one that may write to its
// bucket; alarms see who else uses the key, and what is done to it, in both templates.
func TestAudit(t *testing.T) {
	data, err := os.ReadFile("../../../../../deploy/cloudformation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	s := stack{sealed: true, values: map[string]string{"Key": "KEY", "Role.Arn": "ROLE", "TrailBucket.Arn": "BUCKET", "AWS::StackName": "NAME",
		"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "111122223333"}}
	resources := s.resolve(root.Content[0]).(map[string]any)["Resources"].(map[string]any)
	properties := func(name string) map[string]any {
		return resources[name].(map[string]any)["Properties"].(map[string]any)
	}
	if properties("Trail")["IsMultiRegionTrail"] != "true" || properties("Trail")["TrailName"] != "NAME" {
		t.Errorf("trail %v, want one of all Regions by the name in the bucket's policy", properties("Trail"))
	}
	for _, v := range properties("TrailBucketPolicy")["PolicyDocument"].(map[string]any)["Statement"].([]any) {
		statement := v.(map[string]any)
		if statement["Effect"] != "Allow" {
			continue
		}
		equals := statement["Condition"].(map[string]any)["StringEquals"].(map[string]any)
		if want := "arn:aws:cloudtrail:us-east-1:111122223333:trail/NAME"; equals["aws:SourceArn"] != want {
			t.Errorf("%v without aws:SourceArn = %s", statement, want)
		}
	}
	terraform, err := os.ReadFile("../../../../../deploy/terraform/audit.tf")
	if err != nil {
		t.Fatal(err)
	}
	module := strings.NewReplacer(`\"`, `"`, "${aws_kms_key.this.key_id}", "KEY", "${aws_iam_role.this.arn}", "ROLE").Replace(string(terraform))
	for filter, events := range map[string][]string{
		"DeniedFilter":  {"Decrypt"},
		"UsedFilter":    {"Decrypt", "GenerateDataKey*", "ReEncrypt"},
		"ChangedFilter": {"CreateGrant", "PutKeyPolicy", "DisableKey", "ScheduleKeyDeletion"},
	} {
		pattern := properties(filter)["FilterPattern"].(string)
		for _, e := range events {
			if !strings.Contains(pattern, `$.eventName = "`+e+`"`) {
				t.Errorf("%s does not see %s: %s", filter, e, pattern)
			}
		}
		if len(pattern) > 1024 || strings.Count(pattern, "(") != strings.Count(pattern, ")") {
			t.Errorf("%s: %d characters, or unbalanced: %s", filter, len(pattern), pattern)
		}
		if !strings.Contains(module, pattern) {
			t.Errorf("%s is not in the Terraform module: %s", filter, pattern)
		}
	}
	if used := properties("UsedFilter")["FilterPattern"].(string); !strings.Contains(used, `sessionIssuer.arn != "ROLE"`) || !strings.Contains(used, "sessionIssuer.arn NOT EXISTS") {
		t.Errorf("the filter leaves principals out: %s", used)
	}
	if !strings.Contains(module, "is_multi_region_trail         = true") || strings.Count(module, `"aws:SourceArn" = local.trail_arn`) != 2 {
		t.Error("the Terraform module's trail is another")
	}
}

// stack resolves CloudFormation's functions, as far as policies use them.
type stack struct {
	sealed bool
	values map[string]string
}

func (s stack) resolve(n *yaml.Node) any {
	switch n.Tag {
	case "!If":
		if s.sealed || n.Content[0].Value != "Sealed" {
			return s.resolve(n.Content[1])
		}
		return s.resolve(n.Content[2])
	case "!Ref", "!GetAtt":
		if n.Value == "AWS::NoValue" {
			return nil
		}
		return s.values[n.Value]
	case "!Sub":
		text := n.Value
		for name, value := range s.values {
			text = strings.ReplaceAll(text, "${"+name+"}", value)
		}
		return text
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = s.resolve(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		var list []any
		for _, e := range n.Content {
			if v := s.resolve(e); v != nil {
				list = append(list, v)
			}
		}
		return list
	}
	return n.Value
}

// same compares two policies as JSON.
func same(t *testing.T, name string, got, want any) {
	t.Helper()
	plain := func(v any) (out any) {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if g, w := plain(got), plain(want); !reflect.DeepEqual(g, w) {
		t.Errorf("policy of the %s:\n%v\nwant, as unlockctl prints it:\n%v", name, g, w)
	}
}
