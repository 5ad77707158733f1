package source

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"unlock/internal/aws/arn"
)

// SSM is a ciphertext in base64, in a parameter of type String: its name or ARN, and
// after a colon its version or label, if it is not the current one.
var SSM = &Kind{
	Name: "ssm", Form: "ssm:NAME",
	Parse: func(s *Source, location string) bool {
		name := location
		if a, err := arn.Parse(location); err == nil {
			s.ARN, name = a, strings.TrimPrefix(a.Resource, "parameter/")
		}
		s.Name, s.Version, _ = strings.Cut(name, ":")
		if s.ARN != (arn.ARN{}) && strings.Contains(s.Name, "/") {
			s.Name = "/" + s.Name // only names in a hierarchy begin with a slash
		}
		return s.Name != "" && (s.ARN == arn.ARN{} || s.ARN.Service == "ssm" && name != s.ARN.Resource)
	},
	Remote: &Remote{
		Service: "SSM", Operation: "GetParameter", Action: "ssm:GetParameter", Target: "AmazonSSM.GetParameter", Put: "base64 in a parameter of type String",
		Input: func(s Source) any {
			return map[string]any{"Name": strings.TrimPrefix(s.text, "ssm:"), "WithDecryption": false}
		},
		Read: readParameter,
		Late: map[string]string{"ParameterNotFound ParameterVersionNotFound": "{resource} does not exist in {region}: check source and aws.region"},
	},
}

// readParameter reads an answer to GetParameter.
func readParameter(_ http.Header, body []byte) ([]byte, string, error) {
	var v struct {
		Parameter struct {
			Type, Value string
			Version     int64
		}
	}
	if err := decode(body, &v); err != nil {
		return nil, "", err
	}
	if v.Parameter.Type == "SecureString" {
		return nil, "", errors.New("the parameter is a SecureString")
	}
	data, err := unbase64(v.Parameter.Value)
	if err != nil {
		return nil, "", fmt.Errorf("the parameter is not base64: %w", err)
	}
	return data, strconv.FormatInt(v.Parameter.Version, 10), nil
}

// decode reads an answer of the JSON protocol.
func decode(body []byte, out any) error {
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// unbase64 decodes what may be broken into lines.
func unbase64(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}
