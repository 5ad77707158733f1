package ec2sim_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"unlock/test/ec2sim"
)

func TestKMSRefusals(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	c := m.cloud
	key, disabled, deleted := c.CreateKey(), c.CreateKey(), c.CreateKey()
	replicas := c.CreateMultiRegionKey("eu-west-1", "us-east-1")
	context := map[string]string{"a": "b", "c": "d"}
	blob := c.Encrypt(key, []byte("x"), context)
	flipped := append([]byte(nil), blob...)
	flipped[len(flipped)-1] ^= 1
	ofDisabled, ofDeleted := c.Encrypt(disabled, []byte("x"), nil), c.Encrypt(deleted, []byte("x"), nil)
	c.DisableKey(disabled, true)
	c.ScheduleKeyDeletion(deleted, true)
	european := c.CreateMultiRegionKey("eu-west-1")[0]
	foreign := newCloud(t, ec2sim.Config{})
	type params = map[string]any
	for name, tt := range map[string]struct {
		operation string
		params    params
		want      string // what the body contains
	}{
		"good":                     {"Decrypt", params{"CiphertextBlob": blob, "EncryptionContext": context}, `"Plaintext":"eA=="`},
		"good with key id":         {"Decrypt", params{"CiphertextBlob": blob, "EncryptionContext": context, "KeyId": key[strings.Index(key, "/")+1:]}, `"KeyId":"` + key + `"`},
		"replica, other region":    {"Decrypt", params{"CiphertextBlob": c.Encrypt(replicas[0], []byte("x"), nil)}, `"KeyId":"` + replicas[1] + `"`},
		"context missing":          {"Decrypt", params{"CiphertextBlob": blob}, `{"__type":"InvalidCiphertextException"}`},
		"context in part":          {"Decrypt", params{"CiphertextBlob": blob, "EncryptionContext": map[string]string{"a": "b"}}, `{"__type":"InvalidCiphertextException"}`},
		"context split otherwise":  {"Decrypt", params{"CiphertextBlob": blob, "EncryptionContext": map[string]string{"ab": "", "c": "d"}}, `{"__type":"InvalidCiphertextException"}`},
		"context in another case":  {"Decrypt", params{"CiphertextBlob": blob, "EncryptionContext": map[string]string{"A": "b", "c": "d"}}, `{"__type":"InvalidCiphertextException"}`},
		"flipped bit":              {"Decrypt", params{"CiphertextBlob": flipped, "EncryptionContext": context}, `{"__type":"InvalidCiphertextException"}`},
		"truncated":                {"Decrypt", params{"CiphertextBlob": blob[:50], "EncryptionContext": context}, `{"__type":"InvalidCiphertextException"}`},
		"no ciphertext":            {"Decrypt", params{"CiphertextBlob": []byte("hello")}, `{"__type":"InvalidCiphertextException"}`},
		"empty":                    {"Decrypt", params{}, `{"__type":"InvalidCiphertextException"}`},
		"other key named":          {"Decrypt", params{"CiphertextBlob": blob, "KeyId": replicas[1]}, `"IncorrectKeyException"`},
		"absent key named":         {"Decrypt", params{"CiphertextBlob": blob, "KeyId": "12345678-1234-1234-1234-123456789012"}, `{"__type":"NotFoundException","message":"Key 'arn:aws:kms:us-east-1:111122223333:key/12345678-1234-1234-1234-123456789012' does not exist"}`},
		"key of another region":    {"Decrypt", params{"CiphertextBlob": blob, "KeyId": strings.Replace(key, "us-east-1", "eu-west-1", 1)}, `"NotFoundException","message":"Invalid arn eu-west-1"`},
		"key of another account":   {"Decrypt", params{"CiphertextBlob": blob, "KeyId": strings.Replace(key, "111122223333", "444455556666", 1)}, `"NotFoundException"`},
		"absent alias":             {"Decrypt", params{"CiphertextBlob": blob, "KeyId": "alias/absent"}, `"message":"Alias arn:aws:kms:us-east-1:111122223333:alias/absent is not found."`},
		"ciphertext of an unknown": {"Decrypt", params{"CiphertextBlob": foreign.Encrypt(foreign.CreateKey(), []byte("x"), nil)}, `"AccessDeniedException","message":"The ciphertext refers to a customer master key that does not exist`},
		"ciphertext of a region":   {"Decrypt", params{"CiphertextBlob": c.Encrypt(european, []byte("x"), nil)}, `"AccessDeniedException","message":"The ciphertext refers to a customer master key that does not exist`},
		"key absent in the region": {"DescribeKey", params{"KeyId": european[strings.Index(european, "/")+1:]}, `"NotFoundException"`},
		"disabled":                 {"Decrypt", params{"CiphertextBlob": ofDisabled}, `{"__type":"DisabledException","message":"` + disabled + ` is disabled."}`},
		"pending deletion":         {"Decrypt", params{"CiphertextBlob": ofDeleted}, `{"__type":"KMSInvalidStateException","message":"` + deleted + ` is pending deletion."}`},
		"generate when disabled":   {"GenerateDataKey", params{"KeyId": disabled, "KeySpec": "AES_256"}, `"DisabledException"`},
		"generate, no size":        {"GenerateDataKey", params{"KeyId": key}, `"ValidationException"`},
		"generate, two sizes":      {"GenerateDataKey", params{"KeyId": key, "KeySpec": "AES_256", "NumberOfBytes": 32}, `"ValidationException"`},
		"generate, too long":       {"GenerateDataKey", params{"KeyId": key, "NumberOfBytes": 1025}, `"ValidationException"`},
		"generate without":         {"GenerateDataKeyWithoutPlaintext", params{"KeyId": key, "KeySpec": "AES_256"}, `"CiphertextBlob"`},
		"encrypt too much":         {"Encrypt", params{"KeyId": key, "Plaintext": make([]byte, 4097)}, `"ValidationException"`},
		"encrypt nothing":          {"Encrypt", params{"KeyId": key}, `"ValidationException"`},
		"describe disabled":        {"DescribeKey", params{"KeyId": disabled}, `"KeyState":"Disabled"`},
		"describe deleted":         {"DescribeKey", params{"KeyId": deleted}, `"DeletionDate"`},
		"attestation":              {"Decrypt", params{"CiphertextBlob": blob, "Recipient": params{}}, `"ValidationException"`},
		"unknown operation":        {"ListKeys", params{}, `{"__type":"UnknownOperationException"}`},
		"bad JSON type":            {"Decrypt", params{"CiphertextBlob": 5}, `"SerializationException"`},
	} {
		t.Run(name, func(t *testing.T) {
			a := m.kms(t, admin, tt.operation, tt.params)
			wantStatus := 200
			if strings.Contains(tt.want, "Exception") || strings.Contains(tt.want, "Alias") {
				wantStatus = 400
			}
			if !strings.Contains(a.body, tt.want) || a.status != wantStatus {
				t.Errorf("%s = %d %s, want %s", tt.operation, a.status, a.body, tt.want)
			}
			if strings.HasPrefix(tt.operation, "GenerateDataKeyW") && strings.Contains(a.body, "Plaintext") {
				t.Errorf("%s = %s", tt.operation, a.body)
			}
			if id := a.header.Get("x-amzn-RequestId"); !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) {
				t.Errorf("request id = %q", id)
			}
		})
	}
	c.DisableKey(disabled, false)
	c.ScheduleKeyDeletion(deleted, false)
	if a := m.kms(t, admin, "Decrypt", params{"CiphertextBlob": ofDisabled}); a.status != 200 {
		t.Errorf("Decrypt with a key enabled again = %+v", a)
	}
	if a := m.kms(t, admin, "Decrypt", params{"CiphertextBlob": ofDeleted}); !strings.Contains(a.body, "DisabledException") {
		t.Errorf("Decrypt with a key whose deletion was cancelled = %+v", a)
	}
}

func TestAccessDenied(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{Faults: []string{"kms-denied"}})
	key := m.cloud.CreateKey()
	a := m.kms(t, m.credentials(t), "GenerateDataKey", map[string]any{"KeyId": key, "KeySpec": "AES_256"})
	want := fmt.Sprintf("User: arn:aws:sts::111122223333:assumed-role/unlock-demo/%s is not authorized to perform: kms:GenerateDataKey on resource: %s because no identity-based policy allows the kms:GenerateDataKey action",
		m.metadata(t, "meta-data/instance-id").body, key)
	var got struct{ Type, Message string }
	if err := json.Unmarshal([]byte(strings.Replace(a.body, "__type", "Type", 1)), &got); err != nil || got.Type != "AccessDeniedException" || got.Message != want {
		t.Errorf("GenerateDataKey = %s, want %s", a.body, want)
	}
	requests := m.cloud.Requests()
	r := requests[slices.IndexFunc(requests, func(r ec2sim.Request) bool { return r.Service == "kms" })]
	if r.Operation != "GenerateDataKey" || r.Resource != key || r.ErrorType != "AccessDeniedException" || r.RequestID != a.header.Get("x-amzn-RequestId") || r.Host != "kms.us-east-1.amazonaws.com" || r.Status != 400 {
		t.Errorf("the record says %+v", r)
	}
}

func TestSSM(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	key := m.cloud.CreateKey()
	m.cloud.PutParameter("plain", "old")
	m.cloud.PutParameter("plain", "new")
	m.cloud.PutSecureParameter("/a/secure", "secret", key)
	get := func(params map[string]any) string {
		return m.json(t, admin, "ssm", "AmazonSSM.GetParameter", params).body
	}
	for name, tt := range map[string]struct {
		params map[string]any
		want   string
	}{
		"string":           {map[string]any{"Name": "plain"}, `"Value":"new","Version":2`},
		"first version":    {map[string]any{"Name": "plain:1"}, `"Value":"old","Version":1`},
		"absent version":   {map[string]any{"Name": "plain:3"}, `"ParameterVersionNotFound"`},
		"absent":           {map[string]any{"Name": "absent"}, `{"__type":"ParameterNotFound"}`},
		"secure":           {map[string]any{"Name": "/a/secure", "WithDecryption": true}, `"Value":"secret"`},
		"by ARN":           {map[string]any{"Name": "arn:aws:ssm:us-east-1:111122223333:parameter/a/secure", "WithDecryption": true}, `"Value":"secret"`},
		"secure, as it is": {map[string]any{"Name": "/a/secure"}, `"Value":"AQICA`},
	} {
		if got := get(tt.params); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	m.cloud.DisableKey(key, true)
	if got := get(map[string]any{"Name": "/a/secure", "WithDecryption": true}); !strings.Contains(got, "is disabled") {
		t.Errorf("secure with a disabled key: %s", got)
	}
}
