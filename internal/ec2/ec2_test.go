package ec2_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"unlock/internal/ec2"
)

func TestRole(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
		fmt.Fprint(w, "tok")
	})
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "demo") })
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/demo", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "tok" {
			http.Error(w, "no token", 401)
			return
		}
		fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	c := ec2.New(ec2.Options{Endpoint: srv.URL})
	r, err := c.Role(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "demo" || r.Credentials.SessionToken != "T" {
		t.Errorf("Role = %+v", r)
	}
}
