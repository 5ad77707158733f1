package policy

import (
	"maps"
	"strings"
)

// Binding ties the role's credentials to where they were issued, so that they are of no
// use to who carries them away. What is empty is left open.
type Binding struct {
	Endpoints []string // VPC endpoints through which the instances reach AWS: vpce-…
	VPCs      []string // in which the instances are: vpc-…
	Instances []string // ARNs of instances; * and ? stand for any text
}

// Bind adds conditions to all statements that allow something. Where the encryption
// context names the instance, it has to be one of those.
func (d *Document) Bind(b Binding) {
	conditions := map[string]map[string]any{}
	why := ""
	set := func(operator, key string, values []string, text string) {
		if len(values) == 0 {
			return
		}
		if conditions[operator] == nil {
			conditions[operator] = map[string]any{}
		}
		conditions[operator][key] = values
		why += text
	}
	set("StringEquals", "aws:SourceVpce", b.Endpoints, "; only through these VPC endpoints")
	set("StringEquals", "aws:SourceVpc", b.VPCs, "; only from these VPCs, which the instance is in and the call comes from (by VPC endpoints for all services)")
	set("StringEquals", "aws:Ec2InstanceSourceVpc", b.VPCs, "")
	set("ArnLike", "ec2:SourceInstanceARN", b.Instances, "; only with credentials of these instances")
	for i := range d.Statement {
		s := &d.Statement[i]
		if s.Effect != "Allow" || why == "" {
			continue
		}
		all := map[string]map[string]any{}
		for operator, keys := range s.Condition {
			all[operator] = maps.Clone(keys)
		}
		for key, value := range all["StringLike"] {
			if text, _ := value.(string); strings.Contains(text, anyInstance) && len(b.Instances) > 0 {
				all["StringLike"][key] = ids(text, b.Instances)
			}
		}
		for operator, keys := range conditions {
			if all[operator] == nil {
				all[operator] = map[string]any{}
			}
			maps.Copy(all[operator], keys)
		}
		s.Condition = all
		s.Why += why
	}
}

// ids has the ids of instances in the place of any.
func ids(text string, arns []string) []string {
	var list []string
	for _, a := range arns {
		_, id, _ := strings.Cut(a, ":instance/")
		list = add(list, strings.ReplaceAll(text, anyInstance, id))
	}
	return list
}
