package ec2sim_test

import (
	"strings"
	"testing"

	"unlock/test/ec2sim"
)

// TestAdministrator has the AWS CLI set up an account as the documentation says.
func TestAdministrator(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: it asks the AWS CLI throughout")
	}
	c := newCloud(t, ec2sim.Config{})
	a := newAWSCLI(t, c)
	refused := func(code string, args ...string) {
		t.Helper()
		if out, err := a.run(args...); err == nil || !strings.Contains(out, code) {
			t.Errorf("aws %s: %v, %s; want %s", strings.Join(args, " "), err, out, code)
		}
	}
	id := a.must("kms", "create-key", "--query", "KeyMetadata.KeyId")
	a.must("kms", "create-alias", "--alias-name", "alias/new", "--target-key-id", id)
	if got := a.must("kms", "describe-key", "--key-id", "alias/new", "--query", "KeyMetadata.KeyId"); got != id {
		t.Errorf("alias/new is %s, want %s", got, id)
	}
	refused("AlreadyExistsException", "kms", "create-alias", "--alias-name", "alias/new", "--target-key-id", id)
	refused("InvalidAliasNameException", "kms", "create-alias", "--alias-name", "new", "--target-key-id", id)

	a.must("ssm", "put-parameter", "--name", "/p", "--type", "String", "--value", "one")
	refused("ParameterAlreadyExists", "ssm", "put-parameter", "--name", "/p", "--type", "String", "--value", "two")
	if got := a.must("ssm", "put-parameter", "--name", "/p", "--type", "String", "--value", "two", "--overwrite", "--query", "Version"); got != "2" {
		t.Errorf("version %s, want 2", got)
	}
	if got := a.must("ssm", "get-parameter", "--name", "/p:1", "--query", "Parameter.Value"); got != "one" {
		t.Errorf("old value %s, want one", got)
	}

	a.must("secretsmanager", "create-secret", "--name", "s", "--secret-string", "one")
	refused("ResourceExistsException", "secretsmanager", "create-secret", "--name", "s", "--secret-string", "two")
	first := a.must("secretsmanager", "get-secret-value", "--secret-id", "s", "--query", "VersionId")
	a.must("secretsmanager", "put-secret-value", "--secret-id", "s", "--secret-binary", "fileb://"+a.file("secret", "\x00two"))
	if got := a.must("secretsmanager", "get-secret-value", "--secret-id", c.SecretARN("s"), "--query", "[Name,SecretBinary,VersionStages[0]]"); got != "s\tAHR3bw==\tAWSCURRENT" {
		t.Errorf("secret %q", got)
	}
	if got := a.must("secretsmanager", "get-secret-value", "--secret-id", "s", "--version-id", first, "--query", "[SecretString,VersionStages[0]]"); got != "one\tAWSPREVIOUS" {
		t.Errorf("old secret %q", got)
	}
	refused("ResourceNotFoundException", "secretsmanager", "get-secret-value", "--secret-id", "other")
	c.DeleteSecret("s")
	refused("InvalidRequestException", "secretsmanager", "get-secret-value", "--secret-id", "s")
	if got := c.Secret("s"); string(got) != "\x00two" {
		t.Errorf("secret %q", got)
	}

	a.must("s3api", "create-bucket", "--bucket", "a-bucket")
	refused("BucketAlreadyOwnedByYou", "s3api", "create-bucket", "--bucket", "a-bucket")
	put := []string{"s3api", "put-object", "--bucket", "a-bucket", "--key", "k", "--query", "VersionId", "--body"}
	if got := a.must(append(put, a.file("one", "1"))...); got != "None" {
		t.Errorf("version %s of an object in a bucket without versions", got)
	}
	a.must("s3api", "put-bucket-versioning", "--bucket", "a-bucket", "--versioning-configuration", "Status=Enabled")
	if got := a.must(append(put, a.file("two", "2"))...); got == "None" {
		t.Error("no version")
	}
	if n := len(c.Versions("a-bucket", "k")); n != 2 {
		t.Errorf("%d versions, want 2", n)
	}

	a.must("iam", "create-role", "--role-name", "r", "--assume-role-policy-document", "{}")
	refused("EntityAlreadyExists", "iam", "create-role", "--role-name", "r", "--assume-role-policy-document", "{}")
	refused("MalformedPolicyDocument", "iam", "put-role-policy", "--role-name", "r", "--policy-name", "p", "--policy-document", "{")
	refused("NoSuchEntity", "iam", "put-role-policy", "--role-name", "other", "--policy-name", "p", "--policy-document", "{}")
	a.must("iam", "put-role-policy", "--role-name", "r", "--policy-name", "p", "--policy-document", `{"a":1}`)
	if got := c.RolePolicies("r")["p"]; got != `{"a":1}` {
		t.Errorf("policy %q", got)
	}
	if got := a.must("iam", "create-instance-profile", "--instance-profile-name", "i", "--query", "InstanceProfile.Arn"); got != "arn:aws:iam::111122223333:instance-profile/i" {
		t.Errorf("instance profile %s", got)
	}
	a.must("iam", "add-role-to-instance-profile", "--instance-profile-name", "i", "--role-name", "r")
	refused("InvalidAction", "iam", "list-users")
}
