package source

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"unlock/internal/aws/arn"
)

// SecretsManager is a ciphertext in a secret, named by its name or ARN: SecretBinary,
// or SecretString in base64 (Secrets Manager API Reference, GetSecretValue).
var SecretsManager = &Kind{
	Name: "secretsmanager", Form: "secretsmanager:NAME", Pins: true,
	Parse: func(s *Source, location string) bool {
		s.Name = location
		if a, err := arn.Parse(location); err == nil {
			name, ok := strings.CutPrefix(a.Resource, "secret:")
			s.ARN, s.Name = a, name
			if !ok || a.Service != "secretsmanager" {
				return false
			}
		}
		return s.Name != "" && !strings.Contains(s.Name, ":")
	},
	Remote: &Remote{
		Service: "Secrets Manager", Operation: "GetSecretValue", Action: "secretsmanager:GetSecretValue", Target: "secretsmanager.GetSecretValue",
		Put: "as SecretBinary, or in base64 as SecretString",
		Input: func(s Source) any {
			in := map[string]string{"SecretId": s.Name}
			if s.ARN != (arn.ARN{}) {
				in["SecretId"] = s.ARN.String()
			}
			if s.Version != "" {
				in["VersionId"] = s.Version
			}
			return in
		},
		Read: readSecret,
		Late: map[string]string{
			"ResourceNotFoundException": "{resource} does not exist in {region}, or has no such version: check source, version_id and aws.region",
			"DecryptionFailure":         "let role {role} use the KMS key under which Secrets Manager itself keeps {resource}, or have it keep it under aws/secretsmanager",
		},
		Final: map[string]string{"InvalidRequestException": "{resource} is scheduled for deletion: aws secretsmanager restore-secret, if that is wanted"},
	},
}

// readSecret reads an answer to GetSecretValue.
func readSecret(_ http.Header, body []byte) ([]byte, string, error) {
	var v struct {
		VersionID    string
		SecretBinary []byte
		SecretString string
	}
	if err := decode(body, &v); err != nil {
		return nil, "", err
	}
	switch {
	case len(v.SecretBinary) > 0 && v.SecretString != "":
		return nil, "", errors.New("the secret has a binary and a string")
	case len(v.SecretBinary) > 0:
		return v.SecretBinary, v.VersionID, nil
	}
	data, err := unbase64(v.SecretString)
	if err != nil {
		return nil, "", fmt.Errorf("the secret's string is not base64: %w", err)
	}
	return data, v.VersionID, nil
}
