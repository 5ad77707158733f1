package audit_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/audit"
)

// TestNamedContext: a context that names the instance has to be that of the instance that
// calls.
func TestNamedContext(t *testing.T) {
	t.Parallel()
	q := audit.Question{Window: 15 * time.Minute, Keys: []audit.Key{{Volumes: []string{"data"}, ARNs: []string{headerKey}, Bound: true,
		Context: map[string]string{"host": "${instance-id}", "at": "${region}/${account}", "x": "$${x}"}}}}
	const self = "i-0123456789abcdef0"
	for name, row := range map[string]struct {
		host, at, x string
		launched    bool   // in us-east-1, which the trail has
		by          string // who calls, if it is no instance
		want        string // what other-context says
	}{
		"its own":                       {host: self, at: "us-east-1/" + account, x: "${x}"},
		"another Region":                {host: self, at: "eu-west-1/" + account, x: "${x}"},
		"another Region, as is known":   {host: self, at: "eu-west-1/" + account, x: "${x}", launched: true, want: "another instance's than " + self},
		"its own Region, as is known":   {host: self, at: "us-east-1/" + account, x: "${x}", launched: true},
		"another instance's":            {host: "i-0123456789abcdef1", at: "us-east-1/" + account, x: "${x}", want: "host=i-0123456789abcdef1, unlock:set=1, x=${x}, which is another instance's than " + self},
		"another account's":             {host: self, at: "us-east-1/444455556666", x: "${x}", want: "another instance's"},
		"no instance's":                 {host: "web", at: "us-east-1/" + account, x: "${x}", want: "host=web"},
		"another text":                  {host: self, at: "us-east-1/" + account, x: "x", want: "x=x"},
		"an administrator's":            {host: self, at: "us-east-1/" + account, x: "${x}", by: admin},
		"an administrator's, for none":  {host: "web", at: "us-east-1/" + account, x: "${x}", by: admin, want: "host=web"},
		"the variable itself, unfilled": {host: "${instance-id}", at: "us-east-1/" + account, x: "${x}", want: "host=${instance-id}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			m := &machine{id: self, addr: "172.31.5.10", public: "203.0.113.5", key: "ASIAEXAMPLE", created: begin}
			if row.launched {
				w.launched(m, begin, "RunInstances")
			}
			e := w.kms(m, begin.Add(time.Second), "Decrypt", headerKey, map[string]string{"host": row.host, "at": row.at, "x": row.x, "unlock:set": "1"})
			if row.by != "" {
				by(e, row.by)
			}
			files, keys := w.files()
			r := judge(t, audit.New(q), files, keys)
			i := slices.IndexFunc(r.Findings, func(f audit.Finding) bool { return f.Name == "other-context" })
			switch {
			case (i >= 0) != (row.want != ""):
				t.Errorf("findings %+v, want other-context: %v", r.Findings, row.want != "")
			case i >= 0 && !strings.Contains(r.Findings[i].Why, row.want):
				t.Errorf("why = %q, want %q in it", r.Findings[i].Why, row.want)
			}
			if got := slices.Equal(r.Calls[0].Volumes, []string{"data"}); got != (row.want == "") {
				t.Errorf("volumes %q", r.Calls[0].Volumes)
			}
		})
	}
}
