package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"unlock/test/ec2sim"
)

// Command runs a program, as Output does.
func Command(ctx context.Context, stdin string, command ...string) error {
	_, err := Output(ctx, nil, stdin, command...)
	return err
}

// Output runs a program, found among the administrator's too, and returns what it printed.
func Output(ctx context.Context, env []string, stdin string, command ...string) ([]byte, error) {
	name, err := exec.LookPath(command[0])
	if err != nil {
		name = filepath.Join("/sbin", command[0])
	}
	cmd := exec.CommandContext(ctx, name, command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%s: %w: %s", command[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command[0], err)
	}
	return out, nil
}

// awsEncrypt encrypts the passphrase as an administrator does: with the AWS CLI.
func (l *Lab) awsEncrypt(ctx context.Context, key string) ([]byte, error) {
	url, err := l.Cloud.Loopback()
	if err != nil {
		return nil, err
	}
	ca, secret := l.File("cli-ca.pem"), l.File("passphrase")
	if err := errors.Join(os.WriteFile(ca, l.Cloud.CA(), 0o600), os.WriteFile(secret, []byte(l.Secret()), 0o600)); err != nil {
		return nil, err
	}
	env := []string{
		"AWS_ACCESS_KEY_ID=" + ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY=" + ec2sim.SecretKey, "AWS_CA_BUNDLE=" + ca,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
	return Output(ctx, env, "", "sh", "-c",
		`aws --endpoint-url "$1" kms encrypt --key-id "$2" --plaintext "fileb://$3" --output text --query CiphertextBlob | base64 -d`,
		"sh", url, key, secret)
}
