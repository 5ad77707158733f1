//go:build emulators

package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"unlock/test/emulators"
)

// TestEmulators runs the transcripts of commands that ask AWS against emulators that
// others wrote, a set of them for each.
func TestEmulators(t *testing.T) {
	for _, name := range []string{"awscli", "emulators", "enroll", "recover", "rotate", "seal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := emulators.Start(t)
			e.CLI(t, "s3api", "create-bucket", "--bucket", "a-bucket")
			e.CLI(t, "s3api", "put-bucket-versioning", "--bucket", "a-bucket", "--versioning-configuration", "Status=Enabled")
			p := scripts(func(*testscript.Env) (services, error) {
				return services{api: e.API, s3: e.S3, imds: e.IMDS, ca: e.CA, keys: [2]string{e.CreateKey(t), e.CreateKey(t)}}, nil
			})
			p.Condition = func(c string) (bool, error) { return c == "moto" && e.Moto, nil }
			p.Files = []string{filepath.Join("testdata/script", name+".txtar")}
			testscript.Run(t, p)
		})
	}
}
