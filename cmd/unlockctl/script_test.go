package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"unlock/test/ec2sim"
	"unlock/test/program"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"unlockctl": main, "kill-at": killAt, "dump-memory": dumpMemory})
}

// cloudKey finds the simulated cloud of a script.
type cloudKey struct{}

// TestScript runs the transcripts in testdata/script, which are documentation too.
// Each has an AWS account of its own with two KMS keys, $KEY and $OTHERKEY, and a
// bucket a-bucket that keeps versions; the AWS CLI and cryptsetup are the real ones.
// Lines marked [ec2sim] are left out where emulators are the AWS (TestEmulators), what
// follows [!root] skip is for root alone, and what follows [lacks:PROGRAM] skip for machines
// that have the program.
// Beside testscript's commands there are:
//
//	luks FILE PASSPHRASE   makes a LUKS2 volume with cryptsetup
//	fault NAME...          sets faults of the simulated cloud
//	disable ARN            disables a KMS key
func TestScript(t *testing.T) {
	t.Parallel()
	p := scripts(simulated)
	p.Dir = "testdata/script"
	p.Condition = func(c string) (bool, error) {
		if name, ok := strings.CutPrefix(c, "lacks:"); ok {
			return program.Lacks(name)
		}
		return c == "ec2sim" || c == "root" && os.Geteuid() == 0, nil
	}
	testscript.Run(t, p)
}

// services is whom a script asks.
type services struct {
	api, s3, imds string    // URLs
	ca            string    // PEM file
	keys          [2]string // ARNs
}

// scripts are run with the AWS that world gives to each.
func scripts(world func(env *testscript.Env) (services, error)) testscript.Params {
	return testscript.Params{
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			a, err := world(env)
			if err != nil {
				return err
			}
			return setEnvironment(env, a)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"luks": func(ts *testscript.TestScript, neg bool, args []string) {
				file := ts.MkAbs(args[0])
				ts.Check(os.WriteFile(file, nil, 0o600))
				ts.Check(os.Truncate(file, 20<<20))
				ts.Check(os.WriteFile(file+".pass", []byte(args[1]), 0o600))
				ts.Check(ts.Exec("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", file, file+".pass"))
			},
			"fault": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(ts.Value(cloudKey{}).(*ec2sim.Cloud).SetFaults(args...))
			},
			"disable": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value(cloudKey{}).(*ec2sim.Cloud).DisableKey(args[0], true)
			},
		},
	}
}

// simulated is an ec2sim for one script.
func simulated(env *testscript.Env) (services, error) {
	c, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		return services{}, err
	}
	env.Defer(func() { c.Close() })
	env.Values[cloudKey{}] = c
	url, err := c.Loopback()
	if err != nil {
		return services{}, err
	}
	c.CreateBucket("a-bucket", "us-east-1")
	ca := filepath.Join(env.WorkDir, "ca.pem")
	imds := httptest.NewServer(http.HandlerFunc(identify))
	env.Defer(imds.Close)
	return services{api: url, s3: url, imds: imds.URL, ca: ca, keys: [2]string{c.CreateKey(), c.CreateKey()}}, os.WriteFile(ca, c.CA(), 0o600)
}

// identify is an IMDS that knows which instance this is, and no more.
func identify(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		fmt.Fprint(w, "token")
	case "/latest/dynamic/instance-identity/document":
		fmt.Fprint(w, `{"instanceId":"i-0123456789abcdef0","accountId":"111122223333","region":"us-east-1","imageId":"ami-0123456789abcdef0"}`)
	default:
		http.NotFound(w, r)
	}
}

func setEnvironment(env *testscript.Env, a services) error {
	home, bin := filepath.Join(env.WorkDir, "home"), filepath.Join(env.WorkDir, ".bin")
	if err := os.MkdirAll(filepath.Join(home, ".aws"), 0o700); err != nil {
		return err
	}
	if err := wrapAWS(bin); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"HOME": home, "PATH": bin + ":" + env.Getenv("PATH"), "ID": "${instance-id}", "REGION": "${region}", "ACCOUNT": "${account}", "HOST": "${hostname}", "VOLUME": "${volume}",
		"KEY": a.keys[0], "OTHERKEY": a.keys[1], "IMDS": a.imds,
		"AWS_ENDPOINT_URL": a.api, "AWS_ENDPOINT_URL_S3": a.s3, "AWS_CA_BUNDLE": a.ca,
		"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_DEFAULT_OUTPUT": "text",
		"AWS_ACCESS_KEY_ID": ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY": ec2sim.SecretKey, "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		env.Setenv(name, value)
	}
	return nil
}

// wrapAWS puts an aws into dir that passes $AWS_ENDPOINT_URL on: that of Debian 12
// does not know the variable, and would ask the real AWS. Debian's is taken if it is
// there, as it is the one that people get by its name. Without any, there is none in dir.
func wrapAWS(dir string) error {
	real := "/usr/bin/aws"
	if _, err := os.Stat(real); err != nil {
		if real, err = exec.LookPath("aws"); err != nil {
			return nil
		}
	}
	text := fmt.Sprintf("#!/bin/sh\ncase $1 in s3*) url=$AWS_ENDPOINT_URL_S3 ;; *) url=$AWS_ENDPOINT_URL ;; esac\n"+
		"exec '%s' --endpoint-url \"${url:?}\" \"$@\"\n", real)
	return program.Write(filepath.Join(dir, "aws"), text, 0o755)
}

// TestSecretsHaveNoFlag: no flag takes a secret itself, for arguments are everybody's
// to read in /proc.
func TestSecretsHaveNoFlag(t *testing.T) {
	t.Parallel()
	k := newParser(context.Background(), console{nil, os.Stdout, os.Stderr})
	for _, c := range k.Model.Children {
		for _, f := range c.Flags {
			name := strings.ToLower(f.Name)
			if !strings.Contains(name, "pass") && !strings.HasSuffix(name, "key-file") {
				continue
			}
			if help := strings.ToLower(f.Help); f.PlaceHolder != "FILE" && !f.IsBool() {
				t.Errorf("%s --%s=%s: %s", c.Name, f.Name, f.PlaceHolder, help)
			}
		}
	}
}
