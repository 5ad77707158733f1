package nitrotpm_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"unlock/internal/ec2/attest"
	"unlock/internal/ec2/tpm"
	"unlock/internal/hint"
	"unlock/test/ec2sim"
)

// ours is the index that unlock defines for itself.
const ours = 0x0180756c

// TestClient has unlock's own code get documents, through faults of the TPM. KMS' check
// judges what it got.
func TestClient(t *testing.T) {
	t.Parallel()
	const own, other = 1<<2 | 1<<18, 1<<1 | 1<<2 | 1<<18
	for name, row := range map[string]struct {
		faults     []string
		attributes uint32 // of an index that is there before; 0: none
		want       string // of the error and its hint; "": a document
		refused    string // what KMS says of the document
		left       bool   // an index is there afterwards
	}{
		"good":              {},
		"retry":             {faults: []string{"retry:3"}},
		"testing for 1 s":   {faults: []string{"testing:1s"}},
		"yielded":           {faults: []string{"yielded:2"}},
		"busy for ever":     {faults: []string{"testing"}, want: "the TPM stays busy"},
		"no vendor command": {faults: []string{"no-vendor-command"}, want: "this instance type's TPM does not attest"},
		"NV full":           {faults: []string{"nv-full"}, want: "undefine indices that nobody needs"},
		"owner's password":  {faults: []string{"owner-auth"}, want: "the owner authorization of the TPM is set"},
		"lockout":           {faults: []string{"lockout"}, want: "--clear-lockout"},
		"truncated":         {faults: []string{"truncated"}, want: "is malformed"},
		"error":             {faults: []string{"nsm-error"}, want: "InternalError"},
		"stale":             {faults: []string{"stale"}, refused: "it was made 10m"},
		"forged":            {faults: []string{"forged"}, refused: "its signature"},
		"slow":              {faults: []string{"slow:50ms"}},
		"left over":         {attributes: own},
		"foreign":           {attributes: other, want: "it is another program's", left: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, root := newTPM(t)
			if row.attributes != 0 {
				if err := fake.Leave(t.Context(), ours, row.attributes, 8192); err != nil {
					t.Fatal(err)
				}
			}
			conn, err := fake.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := fake.SetFaults(row.faults...); err != nil {
				t.Fatal(err)
			}
			device := tpm.New(conn)
			defer device.Close()
			limit := time.Minute
			if name == "busy for ever" {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			r := attest.New(device.Request)
			defer r.Close()
			document, err := r.Document(ctx)
			if row.want != "" {
				if err == nil || !strings.Contains(err.Error()+": "+hint.Of(err), row.want) {
					t.Errorf("%v; hint: %s; want %q", err, hint.Of(err), row.want)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if d, err := ec2sim.ReadDocument(document, root, time.Now()); row.refused == "" && err != nil || row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)) {
				t.Errorf("KMS says %v, want %q", err, row.refused)
			} else if row.refused == "" && len(d.PublicKey) < 256 {
				t.Errorf("the public key has %d bytes", len(d.PublicKey))
			}
			if fake.Has(ours) != row.left {
				t.Errorf("the index is there: %v, want %v", !row.left, row.left)
			}
			for _, f := range row.faults {
				f, _, _ = strings.Cut(f, ":")
				if fake.Struck(f) == 0 {
					t.Errorf("%s was not met", f)
				}
			}
		})
	}
}

// TestClose extends the PCR by which later documents differ.
func TestClose(t *testing.T) {
	t.Parallel()
	fake, root := newTPM(t)
	conn, err := fake.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	device := tpm.New(conn)
	defer device.Close()
	read := func() []byte {
		r := attest.New(device.Request)
		defer r.Close()
		document, err := r.Document(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d, err := ec2sim.ReadDocument(document, root, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return d.PCRs[attest.LastPCR]
	}
	before := read()
	if _, err := device.Extend(t.Context(), attest.LastPCR, attest.LastEvent); err != nil {
		t.Fatal(err)
	}
	if after := read(); attest.LastPCR != 13 || string(before) != string(make([]byte, 48)) || string(after) == string(before) {
		t.Errorf("PCR %d is %x, then %x", attest.LastPCR, before, after)
	}
}
