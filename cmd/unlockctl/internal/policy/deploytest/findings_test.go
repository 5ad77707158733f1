package deploytest

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"unlock/cmd/unlockctl/internal/audit"
)

const deploy = "../../../../../deploy/"

// bySource are the words of the queries and patterns in deploy/terraform/audit, by the
// parameter Source. Package audit tests what they find.
func bySource(source string) map[string]string {
	w := map[string]string{"key": keyARN, "key_id": "KEY", "role": "ROLE", "role_arn": roleARN, "purpose": "secretfs", "source": source,
		"bucket": "a-bucket", "object": object, "endpoint": "vpce-1", "sealed": "true", "instance_store": "true"}
	if source == "header" {
		w["sealed"], w["bucket"] = "false", ""
	}
	return w
}

func filled(t *testing.T, file string, words map[string]string) string {
	t.Helper()
	data, err := os.ReadFile(deploy + "terraform/audit/" + file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for name, value := range words {
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	return text
}

// patterns are EventBridge's, with all values as text, as resolve has them.
func patterns(t *testing.T, words map[string]string) map[string]any {
	t.Helper()
	if words["bucket"] == "" {
		words["bucket"] = "-"
	}
	var list map[string]any
	if err := json.Unmarshal([]byte(filled(t, "findings.json.tftpl", words)), &list); err != nil {
		t.Fatal(err)
	}
	return texts(list).(map[string]any)
}

func texts(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = texts(v[name])
		}
		return v
	case []any:
		for i := range v {
			v[i] = texts(v[i])
		}
		return v
	}
	return fmt.Sprint(v)
}

// unsealed are those that concern the object.
var unsealed = []string{"ciphertext-read", "ciphertext-replaced", "bucket-changed"}

// TestFindings: the template has the queries, the columns and the rules of the Terraform
// module, and is short enough for CloudFormation to take it by itself.
func TestFindings(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(deploy + "cloudformation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 51200 {
		t.Errorf("the template has %d bytes, and CloudFormation takes 51200 without a bucket", len(data))
	}
	for source := range configs {
		t.Run(source, func(t *testing.T) {
			var root yaml.Node
			if err := yaml.Unmarshal(data, &root); err != nil {
				t.Fatal(err)
			}
			s := stack{sealed: source == "s3", values: map[string]string{"Key.Arn": keyARN, "Key": "KEY", "Role.Arn": roleARN, "Purpose": "secretfs", "Object": object,
				"Bucket": "a-bucket", "KMSEndpoint": "vpce-1", "AWS::StackName": "NAME", "FindingsTopic": "TOPIC"}}
			resources := s.resolve(root.Content[0]).(map[string]any)["Resources"].(map[string]any)
			want := patterns(t, bySource(source))
			rules := 0
			for name, r := range resources {
				r := r.(map[string]any)
				if r["Type"] != "AWS::Events::Rule" {
					continue
				}
				rules++
				p := r["Properties"].(map[string]any)
				finding := strings.TrimPrefix(p["Name"].(string), "NAME-")
				if !slices.ContainsFunc(audit.Rules, func(r struct{ Name, Text string }) bool { return r.Name == finding }) {
					t.Errorf("%s is for %s, which unlockctl audit does not know", name, finding)
				}
				if condition := r["Condition"]; (condition == "Sealed") != slices.Contains(unsealed, finding) || (condition == "Endpoints") != (finding == "elsewhere") {
					t.Errorf("%s has the condition %v", name, condition)
				}
				if s.sealed || !slices.Contains(unsealed, finding) {
					same(t, "rule "+finding, p["EventPattern"], want[finding])
				}
				target := p["Targets"].([]any)[0].(map[string]any)
				text := target["InputTransformer"].(map[string]any)["InputTemplate"].(string)
				if target["Arn"] != "TOPIC" || !strings.HasPrefix(text, `"`+finding+": ") || p["State"] != "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS" {
					t.Errorf("%s: target %v, state %v", name, target, p["State"])
				}
			}
			if rules != len(want) {
				t.Errorf("%d rules, want %d", rules, len(want))
			}
		})
	}
	var template struct {
		Resources map[string]struct {
			Properties struct {
				QueryString yaml.Node `yaml:"QueryString"`
				TableInput  struct {
					StorageDescriptor struct {
						Columns []struct {
							Name string `yaml:"Name"`
							Type string `yaml:"Type"`
						} `yaml:"Columns"`
					} `yaml:"StorageDescriptor"`
				} `yaml:"TableInput"`
			} `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(data, &template); err != nil {
		t.Fatal(err)
	}
	for resource, file := range map[string]string{"ViewQuery": "view.sql", "WhoQuery": "who.sql", "FoundQuery": "found.sql", "DeniedQuery": "denied.sql"} {
		node := template.Resources[resource].Properties.QueryString
		if file == "view.sql" {
			var names []string
			for i := 0; i < len(node.Content[1].Content); i += 2 {
				names = append(names, node.Content[1].Content[i].Value)
			}
			if want := []string{"key", "purpose", "role", "bucket", "object", "source", "instance_store"}; !slices.Equal(names, want) {
				t.Errorf("the view's words are %q, want %q", names, want)
			}
			node = *node.Content[0]
		}
		if want := filled(t, file, nil); node.Value != want {
			t.Errorf("%s is not %s", resource, file)
		}
	}
	columns := map[string]string{}
	for _, c := range template.Resources["AuditTable"].Properties.TableInput.StorageDescriptor.Columns {
		columns[c.Name] = c.Type
	}
	var want map[string]string
	if err := json.Unmarshal([]byte(filled(t, "columns.json", nil)), &want); err != nil || !reflect.DeepEqual(columns, want) {
		t.Errorf("columns %v, want %v (%v)", columns, want, err)
	}
}
