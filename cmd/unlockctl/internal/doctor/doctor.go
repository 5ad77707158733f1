// Package doctor looks for what would make the next boot fail: in the
// configuration, the disks, the kernel's modules, the initramfs, IMDS, and what AWS
// answers. It changes nothing; what it decrypts on trial is wiped at once. The calls
// to AWS are those of a boot, made by whoever runs it: on the instance its role.
package doctor

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/ec2/tpm"
	"unlock/internal/keys/source"
)

// State of a finding.
type State string

const (
	OK   State = "ok"
	Fail State = "FAIL" // the boot will fail
	Warn State = "warn" // it may, or something could be safer
	Skip State = "skip" // it could not be looked at from here
)

// Finding is one line of the report.
type Finding struct {
	Check  string `json:"check"` // "config", "kms", …
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// Doctor says where to look.
type Doctor struct {
	Config  string   // unlock.toml
	Unlock  string   // the current binary, to compare with that in the image
	Image   string   // initramfs; "": it is not looked at
	Modules string   // /lib/modules/VERSION
	Bin     []string // directories with the programs that make file systems; nil: the system's
	System  string   // root of the system that boots, for its boot loader, generators and other kernels; "": not looked at
	ESP     string   // of the system that boots: directory, partition or disk image; "": not known
	Policy  string   // file with the key policy that attested keys have or will get; "": KMS is asked
	Offline bool     // neither IMDS nor AWS is asked: an image is being built

	Disks  func() ([]block.Disk, error)      // of the machine
	Active func(name string) (string, error) // UUID of the mapping of that name, "" if there is none
	// Lacking is how many members of an open mirror are not in step; nil: not known.
	Lacking func(name string) (int, error)
	IMDS    *http.Client // nil: the boot's
	TPM     func(ctx context.Context) (*tpm.TPM, error)
	// Account is whose AWS is asked.
	Account func(ctx context.Context, c *config.Config) (*account.Account, error)
	// Resolve looks a host name up.
	Resolve func(ctx context.Context, host string) error
}

// report collects findings.
type report struct{ findings []Finding }

func (r *report) add(check string, state State, hint, format string, args ...any) {
	r.findings = append(r.findings, Finding{check, state, fmt.Sprintf(format, args...), hint})
}

// Examine looks at everything and returns what it found, in the order of a boot.
func (d *Doctor) Examine(ctx context.Context) []Finding {
	r := &report{}
	c := d.config(r)
	if c == nil {
		return r.findings
	}
	d.needs(r, c)
	headers := d.disks(r, c)
	d.image(r, c)
	d.system(r)
	next := d.attested(ctx, r, c)
	if d.Offline {
		r.add("aws", Skip, "", "%s are not asked (--offline)", source.List("and", append([]string{"IMDS", "KMS"}, source.Services()...)))
		return r.findings
	}
	who := d.imds(ctx, r, c)
	d.aws(ctx, r, c, headers, who, next)
	return r.findings
}

// Failed reports whether any finding is one that makes a boot fail.
func Failed(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.State == Fail })
}

func (d *Doctor) config(r *report) *config.Config {
	c, err := config.Load(d.Config, "")
	if err != nil {
		hint := ""
		if e, ok := err.(*config.Error); ok {
			hint = e.Hint
		}
		r.add("config", Fail, hint, "%v", err)
		return nil
	}
	r.add("config", OK, "", "%s: %d volume(s)", filepath.Base(d.Config), len(c.Volumes))
	for _, v := range c.Volumes {
		if v.Key.Source.Kind.Sealed() && len(v.Key.Context) == 0 {
			r.add("config", Warn, "set [key.context], and seal the passphrase again with it",
				"volume %q has no encryption context: whatever the KMS key has encrypted can be put in its place", v.Name)
		}
	}
	return c
}
