package places_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/doctor"
	"unlock/cmd/unlockctl/internal/manual"
	"unlock/cmd/unlockctl/internal/places"
	"unlock/cmd/unlockctl/internal/policy"
	"unlock/internal/aws"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
)

// trial is a source of a service that AWS does not have.
var trial = &source.Kind{
	Name: "trial", Form: "trial:NAME",
	Parse: func(s *source.Source, location string) bool { s.Name = location; return location != "" },
	Remote: &source.Remote{
		Service: "Trial Service", Operation: "GetThing", Action: "trial:GetThing", Target: "Trial.GetThing", Put: "as the value of a thing",
		Input: func(s source.Source) any { return map[string]string{"Thing": s.Name} },
		Read: func(_ http.Header, body []byte) ([]byte, string, error) {
			var v struct{ Value []byte }
			err := json.Unmarshal(body, &v)
			return v.Value, "", err
		},
		Late: map[string]string{"NoSuchThing": "make thing {resource} in {region}"},
	},
}

const trialFile = `
text = "a thing of the trial service"
resource = "arn:{partition}:trial:{region}:{account}:thing/{name}"
why = "read this thing"
kept = "{name} before"
[create]
action = "trial:PutThing"
target = "Trial.PutThing"
input = { Thing = "{id}", Value = "{base64}", Token = "{token}" }
exists = "ThingExists"
[hints]
NoSuchThing = "look for {resource}"
`

// TestTrial adds a source in the two places that there are for one, and looks whether
// all that has to know of sources knows it.
func TestTrial(t *testing.T) {
	kinds := source.Kinds
	files := places.SetFiles(fstest.MapFS{"trial.toml": {Data: []byte(trialFile)}, "s3.toml": {Data: []byte("text = \"an object\"")}})
	source.Kinds = []*source.Kind{source.S3, trial}
	t.Cleanup(func() { source.Kinds = kinds; places.SetFiles(files) })
	w := newWorld(t)

	t.Run("configuration", func(t *testing.T) {
		if s := w.config.Volumes[0].Key.Source; s.Kind != trial || s.Name != "a-thing" {
			t.Errorf("source = %+v", s)
		}
		_, err := config.Parse("unlock.toml", []byte("[key]\nsource = \"other:x\"\n[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n"))
		if want := "sources are s3://BUCKET/KEY and trial:NAME"; hint.Of(err) != want {
			t.Errorf("hint = %q, want %q", hint.Of(err), want)
		}
	})
	t.Run("endpoint", func(t *testing.T) {
		if got := aws.Endpoint(config.AWS{}, trial.Name, "eu-west-1").String(); got != "https://trial.eu-west-1.amazonaws.com" {
			t.Errorf("endpoint = %s", got)
		}
	})
	t.Run("boot", w.boot)
	t.Run("policy", func(t *testing.T) {
		d, err := policy.Role(w.config)
		if err != nil {
			t.Fatal(err)
		}
		if s := d.Statement[0]; s.Action[0] != "trial:GetThing" || s.Resource[0] != "arn:aws:trial:us-east-1:111122223333:thing/a-thing" || s.Why != "read this thing" {
			t.Errorf("statement = %+v", s)
		}
	})
	t.Run("manual", func(t *testing.T) {
		page, _ := manual.Page("unlock.toml.5", nil)
		for _, want := range []string{`\fBtrial:NAME\fR: a thing of the trial service.`, `\fBtrial\fR, \fBimds\fR`} {
			if !strings.Contains(page, want) {
				t.Errorf("unlock.toml(5) does not have %q:\n%s", want, page)
			}
		}
	})
	t.Run("seal", w.seal)
	t.Run("doctor", w.doctor)
}

// world serves KMS and the trial service.
type world struct {
	*httptest.Server
	config *config.Config
	file   string

	mu     sync.Mutex
	asked  []string // targets
	refuse string   // the code with which the trial service refuses
}

func newWorld(t *testing.T) *world {
	w := &world{}
	w.Server = httptest.NewTLSServer(w)
	t.Cleanup(w.Close)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`[key]
source  = "trial:a-thing"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/1"
context = { purpose = "trial" }
[aws]
ca_bundle = %q
endpoint  = { kms = %q, trial = %q, imds = "http://127.0.0.1:1" }
[[volume]]
name   = "a"
device = "/dev/vdb"
`, ca, w.URL, w.URL)
	w.file = filepath.Join(dir, "unlock.toml")
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.config, err = config.Load(w.file, ""); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "HOME": dir, "AWS_CONFIG_FILE": "", "AWS_PROFILE": "", "AWS_CA_BUNDLE": "", "AWS_ENDPOINT_URL": ""} {
		t.Setenv(name, value)
	}
	return w
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	target := r.Header.Get("X-Amz-Target")
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.asked = append(w.asked, target+" "+string(body))
	refuse := w.refuse
	w.mu.Unlock()
	rw.Header().Set("X-Amzn-Requestid", "request")
	switch {
	case strings.HasPrefix(target, "Trial.") && refuse != "":
		rw.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(rw, `{"__type":%q,"message":"no"}`, refuse)
	case strings.HasPrefix(target, "Trial."):
		json.NewEncoder(rw).Encode(map[string]any{"Value": []byte("ciphertext")})
	case target == "TrentService.Decrypt":
		json.NewEncoder(rw).Encode(map[string]any{"KeyId": "arn:aws:kms:us-east-1:111122223333:key/1", "Plaintext": []byte("passphrase")})
	}
}

// answer sets the code with which the trial service refuses, and forgets what it was
// asked.
func (w *world) answer(code string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse, w.asked = code, nil
}

// boot reads a ciphertext as a boot does.
func (w *world) boot(t *testing.T) {
	roots := x509.NewCertPool()
	roots.AddCert(w.Certificate())
	client, err := keys.New(keys.Options{
		Identity: func(context.Context) (aws.Role, error) {
			return aws.Role{Name: "demo", Credentials: sdk.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}}, nil
		},
		Dial: (&net.Dialer{}).DialContext, Roots: roots, AWS: w.config.AWS,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Warm(t.Context(), w.config.Volumes[0].Key)
	got, err := client.Get(t.Context(), keys.Want{Key: w.config.Volumes[0].Key})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Passphrase.Wipe()
	if string(got.Passphrase.Bytes()) != "passphrase" || got.Calls[0].Service != "trial" || w.asked[0] != `Trial.GetThing {"Thing":"a-thing"}` {
		t.Errorf("passphrase %q, calls %+v, asked %q", got.Passphrase.Bytes(), got.Calls, w.asked)
	}
	for code, want := range map[string]string{
		"NoSuchThing":         "make thing trial:a-thing in us-east-1",
		"AccessDenied":        "allow trial:GetThing on trial:a-thing to role demo",
		"ThrottlingException": "Trial Service still throttles",
	} {
		w.answer(code)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := client.Get(ctx, keys.Want{Key: w.config.Volumes[0].Key})
		cancel()
		if !strings.Contains(hint.Of(err), want) {
			t.Errorf("%s: hint = %q, want %q", code, hint.Of(err), want)
		}
	}
	w.answer("")
}

// seal writes where nothing is, and where something is.
func (w *world) seal(t *testing.T) {
	a, err := account.New(t.Context(), account.Options{AWS: w.config.AWS})
	if err != nil {
		t.Fatal(err)
	}
	place, err := a.Place(w.config.Volumes[0].Key.Source, "arn:aws:kms:us-east-1:111122223333:key/1")
	if err != nil {
		t.Fatal(err)
	}
	w.answer("")
	want := regexp.MustCompile(`^Trial\.PutThing \{"Thing":"a-thing","Token":"[0-9a-f]{32}","Value":"` + base64.StdEncoding.EncodeToString([]byte("sealed")) + `"}$`)
	if _, err := place.Create(t.Context(), []byte("sealed")); err != nil || !want.MatchString(w.asked[0]) {
		t.Errorf("Create = %v, asked %q, want %q", err, w.asked, want)
	}
	w.answer("ThingExists")
	if _, err := place.Create(t.Context(), []byte("sealed")); !errors.Is(err, account.ErrExists) {
		t.Errorf("Create = %v, want that there is one", err)
	}
	w.answer("NoSuchThing")
	if _, err := place.Read(t.Context()); hint.Of(err) != "look for trial:a-thing" {
		t.Errorf("Read: %v, hint = %q", err, hint.Of(err))
	}
	w.answer("")
}

// doctor looks the endpoint up, and reads the ciphertext.
func (w *world) doctor(t *testing.T) {
	var looked []string
	d := doctor.Doctor{
		Config: w.file, Unlock: w.file, Modules: t.TempDir(),
		Disks:  func() ([]block.Disk, error) { return nil, nil },
		Active: func(string) (string, error) { return "", nil },
		Account: func(ctx context.Context, c *config.Config) (*account.Account, error) {
			return account.New(ctx, account.Options{AWS: c.AWS})
		},
		Resolve: func(_ context.Context, host string) error { looked = append(looked, host); return nil },
	}
	w.answer("")
	found := map[string]doctor.Finding{}
	for _, f := range d.Examine(t.Context()) {
		if f.Check == "trial" || f.Check == "kms" {
			found[f.Check] = f
		}
	}
	if f := found["trial"]; f.State != doctor.OK || !strings.Contains(f.Detail, "trial:a-thing: a ciphertext of 10 bytes") {
		t.Errorf("finding = %+v, looked up %v", f, looked)
	}
	if f := found["kms"]; f.State != doctor.OK {
		t.Errorf("finding = %+v", f)
	}
	w.config.AWS.Endpoint = nil
	if got := account.Endpoint(config.AWS{}, "trial", w.config.Volumes[0].Key.Home()); got != "https://trial.us-east-1.amazonaws.com" {
		t.Errorf("doctor asks %s", got)
	}
}
