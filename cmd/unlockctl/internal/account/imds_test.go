package account_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/account"
)

// TestInstanceRole: where the credentials are the instance's, IMDS is asked as a boot
// asks it. Whatever it answers to requests for a token, none is made without one, and
// nobody else gets to see it.
func TestInstanceRole(t *testing.T) {
	for name, row := range map[string]struct {
		token http.HandlerFunc
		want  []string // requests
	}{
		"version 2": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
			fmt.Fprint(w, "t")
		}, []string{"PUT", "GET t", "GET t"}},
		"version 1":    {http.NotFound, []string{"PUT"}},
		"disabled":     {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }, []string{"PUT"}},
		"not this way": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }, []string{"PUT"}},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, []string{"PUT"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = append(got, strings.TrimSpace(r.Method+" "+r.Header.Get("X-Aws-Ec2-Metadata-Token")))
				switch r.Method + " " + r.URL.Path {
				case "PUT /latest/api/token":
					row.token(w, r)
				case "GET /latest/meta-data/iam/security-credentials/":
					fmt.Fprint(w, "demo")
				case "GET /latest/meta-data/iam/security-credentials/demo":
					fmt.Fprint(w, `{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":"2100-01-01T00:00:00Z"}`)
				default:
					http.NotFound(w, r)
				}
			}))
			defer imds.Close()
			kms := httptest.NewServer(http.NotFoundHandler())
			defer kms.Close()
			for name, value := range map[string]string{
				"HOME": t.TempDir(), "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.URL, "AWS_EC2_METADATA_DISABLED": "",
				"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "", "AWS_ENDPOINT_URL": kms.URL, "AWS_MAX_ATTEMPTS": "1",
			} {
				t.Setenv(name, value)
			}
			a, err := account.New(t.Context(), account.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if _, err := a.DescribeKey(t.Context(), "alias/x"); err == nil {
				t.Error("a KMS that knows nothing describes a key")
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("requests %q, want %q", got, row.want)
			}
		})
	}
}
