package ec2sim_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"unlock/test/ec2sim"
	"unlock/test/nitrotpm"
)

const (
	rootARN  = "arn:aws:iam::111122223333:root"
	adminARN = "arn:aws:iam::111122223333:user/admin"
	roleARN  = "arn:aws:iam::111122223333:role/unlock-demo"
)

// document of a policy; each statement is the JSON of its members.
func document(statements ...string) string {
	return `{"Version":"2012-10-17","Statement":[{` + strings.Join(statements, "},{") + `}]}`
}

// TestKeyPolicy has the instance's role decrypt under policies, with a document and
// without.
func TestKeyPolicy(t *testing.T) {
	t.Parallel()
	a := newAttested(t, newMachine(t, ec2sim.Config{}))
	role := a.credentials(t)
	blob := a.cloud.Encrypt(a.key, []byte("x"), map[string]string{"purpose": "secretfs"})
	pcr4, zero := strings.Repeat("ab", 48), strings.Repeat("00", 48)
	const able = `"Sid":"able","Effect":"Allow","Principal":{"AWS":"` + rootARN + `"},"Action":"kms:*","Resource":"*"`
	to := func(effect, principal, action, condition string) string {
		s := fmt.Sprintf(`"Sid":"s","Effect":%q,"Principal":%s,"Action":%q,"Resource":"*"`, effect, principal, action)
		if condition != "" {
			s += `,"Condition":` + condition
		}
		return s
	}
	const its = `{"AWS":"` + roleARN + `"}`
	when := func(operator, n, value string) string {
		return fmt.Sprintf(`{%q:{"kms:RecipientAttestation:NitroTPMPCR%s":%q}}`, operator, n, value)
	}
	denied := "because no resource-based policy allows the kms:Decrypt action"
	explicit := "with an explicit deny in a resource-based policy"
	for name, row := range map[string]struct {
		policy       string
		plain, other string // what refuses a call without a document, and one with another PCR 4; "": nothing
		attested     string // with the right one
	}{
		"none":                     {"", "", "", ""},
		"the account, IAM decides": {document(able), "", "", ""},
		"the role":                 {document(to("Allow", its, "kms:Decrypt", "")), "", "", ""},
		"another role":             {document(to("Allow", `{"AWS":"arn:aws:iam::111122223333:role/other"}`, "kms:Decrypt", "")), denied, denied, denied},
		"another action":           {document(to("Allow", its, "kms:Encrypt", "")), denied, denied, denied},
		"wildcards":                {document(to("Allow", `"*"`, "kms:De*", "")), "", "", ""},
		"denied":                   {document(able, to("Deny", its, "kms:decrypt", "")), explicit, explicit, explicit},
		"PCR 4":                    {document(to("Allow", its, "kms:Decrypt", when("StringEqualsIgnoreCase", "4", strings.ToUpper(pcr4)))), denied, denied, ""},
		"PCR 4, in another case":   {document(to("Allow", its, "kms:Decrypt", when("StringEquals", "4", strings.ToUpper(pcr4)))), denied, denied, denied},
		"PCR 4, if it exists":      {document(to("Allow", its, "kms:Decrypt", when("StringEqualsIfExists", "4", pcr4))), "", denied, ""},
		"PCR 4, one of two": {document(to("Allow", its, "kms:Decrypt", fmt.Sprintf(`{"StringEquals":{"kms:RecipientAttestation:NitroTPMPCR4":[%q,%q]}}`, zero, pcr4))),
			denied, "", ""},
		"PCR 4 and 12": {document(to("Allow", its, "kms:Decrypt", fmt.Sprintf(`{"StringEquals":{"kms:RecipientAttestation:NitroTPMPCR4":%q,"kms:RecipientAttestation:NitroTPMPCR12":%q}}`, pcr4, zero))),
			denied, denied, ""},
		"PCR 4 and another 12": {document(to("Allow", its, "kms:Decrypt", fmt.Sprintf(`{"StringEquals":{"kms:RecipientAttestation:NitroTPMPCR4":%q,"kms:RecipientAttestation:NitroTPMPCR12":%q}}`, pcr4, pcr4))),
			denied, denied, denied},
		"allowed beside it":       {document(able, to("Allow", its, "kms:Decrypt", when("StringEquals", "4", pcr4))), "", "", ""},
		"denied unless":           {document(able, to("Deny", `"*"`, "kms:Decrypt", when("StringNotEqualsIgnoreCase", "4", pcr4))), explicit, explicit, ""},
		"denied unless, negated":  {document(able, to("Deny", `"*"`, "kms:Decrypt", when("StringNotEqualsIfExists", "4", pcr4))), explicit, explicit, ""},
		"denied without":          {document(able, to("Deny", `"*"`, "kms:Decrypt", when("Null", "4", "true"))), explicit, "", ""},
		"one Deny of two PCRs":    {document(able, to("Deny", `"*"`, "kms:Decrypt", fmt.Sprintf(`{"StringNotEquals":{"kms:RecipientAttestation:NitroTPMPCR4":%q,"kms:RecipientAttestation:NitroTPMPCR12":%q}}`, pcr4, zero))), explicit, "", ""},
		"the PCR of an enclave":   {document(to("Allow", its, "kms:Decrypt", `{"StringEquals":{"kms:RecipientAttestation:PCR4":"`+pcr4+`"}}`)), denied, denied, denied},
		"the context":             {document(to("Allow", its, "kms:Decrypt", `{"StringEquals":{"kms:EncryptionContext:purpose":"secretfs"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["purpose"]}}`)), "", "", ""},
		"another context":         {document(to("Allow", its, "kms:Decrypt", `{"StringEquals":{"kms:EncryptionContext:purpose":"else"}}`)), denied, denied, denied},
		"all but a named one":     {document(able, to("Deny", `"*"`, "kms:Decrypt", `{"ArnNotEquals":{"aws:PrincipalArn":"`+adminARN+`"}}`)), explicit, explicit, explicit},
		"all but the role itself": {document(able, to("Deny", `"*"`, "kms:Decrypt", `{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/unlock-*"}}`)), "", "", ""},
	} {
		a.cloud.SetKeyPolicy(a.key, row.policy)
		call := func(recipient map[string]any) string {
			params := map[string]any{"CiphertextBlob": blob, "EncryptionContext": map[string]string{"purpose": "secretfs"}}
			if recipient != nil {
				params["Recipient"] = recipient
			}
			return a.kms(t, role, "Decrypt", params).body
		}
		for who, r := range map[string]struct{ got, want string }{
			"no document":   {call(nil), row.plain},
			"another PCR 4": {call(a.recipient(t, func(c *nitrotpm.Content) { c.PCRs[4] = c.PCRs[5] })), row.other},
			"its document":  {call(a.recipient(t, nil)), row.attested},
		} {
			if ok := strings.Contains(r.got, `"KeyId"`); ok != (r.want == "") || !strings.Contains(r.got, r.want) {
				t.Errorf("%s, %s: %s, want %q", name, who, r.got, r.want)
			}
		}
	}
}

func TestPutKeyPolicy(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	key := m.cloud.CreateKey()
	put := func(policy string) string {
		return m.kms(t, admin, "PutKeyPolicy", map[string]any{"KeyId": key, "PolicyName": "default", "Policy": policy}).body
	}
	statement := func(more string) string {
		return document(`"Effect":"Allow","Principal":{"AWS":"` + adminARN + `"},"Action":"kms:*","Resource":"*"` + more)
	}
	for name, row := range map[string]struct{ policy, want string }{
		"good":             {statement(""), "{}"},
		"no JSON":          {"{", "MalformedPolicyDocumentException"},
		"no statement":     {`{"Version":"2012-10-17","Statement":[]}`, "MalformedPolicyDocumentException"},
		"no principal":     {document(`"Effect":"Allow","Action":"kms:*","Resource":"*"`), "MalformedPolicyDocumentException"},
		"unknown operator": {statement(`,"Condition":{"StringIs":{"a":"b"}}`), "no condition is named StringIs"},
		"unknown member":   {statement(`,"Why":"because"`), "MalformedPolicyDocumentException"},
		"who sets it out":  {document(`"Effect":"Allow","Principal":{"AWS":"` + roleARN + `"},"Action":"kms:*","Resource":"*"`), "will not allow you to update the key policy in the future"},
		"who sets it is denied": {document(`"Effect":"Allow","Principal":{"AWS":"`+rootARN+`"},"Action":"kms:*","Resource":"*"`, `"Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*"`),
			"will not allow you to update the key policy in the future"},
	} {
		if got := put(row.policy); !strings.Contains(got, row.want) {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
	var out struct{ Policy string }
	if err := json.Unmarshal([]byte(m.kms(t, admin, "GetKeyPolicy", map[string]any{"KeyId": key}).body), &out); err != nil || out.Policy != statement("") {
		t.Errorf("GetKeyPolicy = %+v, %v", out, err)
	}
	for operation, params := range map[string]map[string]any{
		"CreateGrant":  {"KeyId": key, "GranteePrincipal": roleARN, "Operations": []string{"Decrypt"}},
		"PutKeyPolicy": {"KeyId": key, "Policy": statement("")}, "DisableKey": {"KeyId": key}, "DescribeKey": {"KeyId": key}, "Encrypt": {"KeyId": key, "Plaintext": []byte("x")},
		"ReEncrypt": {"CiphertextBlob": m.cloud.Encrypt(key, []byte("x"), nil), "DestinationKeyId": m.cloud.CreateKey()},
	} {
		if got := m.kms(t, m.credentials(t), operation, params).body; !strings.Contains(got, "AccessDeniedException") {
			t.Errorf("%s by the role: %s", operation, got)
		}
	}
}
