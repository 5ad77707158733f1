package audit

import (
	"regexp"
	"slices"

	"unlock/internal/config"
)

// keyOf is a key of the question, and the values that its encryption context may have.
type keyOf struct {
	*Key
	values map[string]value
}

// value is one of the configuration: a text, or a pattern with a group for each variable.
type value struct {
	text      string
	pattern   *regexp.Regexp // nil: there are no variables
	variables []string
}

// looks is what the variables look like.
var looks = map[string]string{config.VarInstance: "(i-[0-9a-f]{8,17})", config.VarAccount: "([0-9]{12})", config.VarRegion: "([a-z0-9-]+)"}

func newKeyOf(k *Key) keyOf {
	of := keyOf{k, map[string]value{}}
	for name, text := range k.Context {
		parts, _ := config.Parts(text)
		v := value{}
		pattern := "^"
		for _, p := range parts {
			v.text += p.Text
			pattern += regexp.QuoteMeta(p.Text) + looks[p.Variable]
			if p.Variable != "" {
				v.variables = append(v.variables, p.Variable)
			}
		}
		if v.variables != nil {
			v.pattern = regexp.MustCompile(pattern + "$")
		}
		of.values[name] = v
	}
	return of
}

// fits reports whether the encryption context of a call is one that k has. What names an
// instance has to name that of the call, as far as the call is of one; whoever else calls
// may mean any.
func (k *keyOf) fits(c *Call) bool {
	n := len(k.values)
	if k.Bound {
		n++
	}
	if len(c.Context) != n || k.Bound && c.Context[config.ContextSet] == "" {
		return false
	}
	for name, v := range k.values {
		if got, ok := c.Context[name]; !ok || !v.fits(got, c) {
			return false
		}
	}
	return true
}

func (v *value) fits(got string, c *Call) bool {
	if v.pattern == nil {
		return got == v.text
	}
	m := v.pattern.FindStringSubmatch(got)
	if m == nil {
		return false
	}
	who := config.Identity{}
	if c.Instance != "" {
		who = config.Identity{Instance: c.Instance, Account: c.account, Region: c.home}
	}
	for i, variable := range v.variables {
		if known := who.Get(variable); known != "" && known != m[i+1] {
			return false
		}
	}
	return true
}

// ofKeys says which volumes the calls to KMS are for.
func (a *Audit) ofKeys(c *Call) {
	if c.Service != "kms" {
		return
	}
	if i := a.instances[c.Instance]; i != nil {
		c.home = i.region
	}
	for _, k := range a.configured(c.Key) {
		if c.keyed && k.fits(c) {
			c.Volumes = k.Volumes
		}
	}
}

// instead says what a context is and, where that of the instance would be another, which.
func (j *judge) instead(c *Call, keys []*keyOf) string {
	text := c.context
	if text == "" {
		text = "none"
	}
	if c.Instance != "" && slices.ContainsFunc(keys, func(k *keyOf) bool { return k.fits(&Call{Context: c.Context}) }) {
		text += ", which is another instance's than " + c.Instance
	}
	return text
}
