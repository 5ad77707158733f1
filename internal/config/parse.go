package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"unlock/internal/aws/arn"
	"unlock/internal/keys/source"
)

// DefaultTimeout is how long a boot waits for disks, network and AWS in all.
const DefaultTimeout = 10 * time.Minute

// leastRetry spares AWS, and the console, whoever is impatient.
const leastRetry = 10 * time.Second

// DefaultRetry is how long a boot that is held up waits, about, before it tries again.
const DefaultRetry = 5 * time.Minute

const missingHint = "put the configuration there and rebuild the initramfs"

// Load reads the configuration from file and applies the kernel command line.
// Every error is an *Error.
func Load(file, cmdline string) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		advice := missingHint
		switch {
		case errors.Is(err, fs.ErrPermission):
			advice = "only root may read it: run it as root"
		case !errors.Is(err, fs.ErrNotExist):
			advice = "name the file itself"
		}
		return nil, &Error{File: file, Msg: errors.Unwrap(err).Error(), Hint: advice}
	}
	c, err := Parse(file, data)
	if err != nil {
		return nil, err
	}
	if err := c.applyCmdline(cmdline); err != nil {
		return nil, err
	}
	c.Sum = fmt.Sprintf("%x", sha256.Sum256(data))
	return c, nil
}

// Parse reads a configuration from memory; file is its name in messages. Every
// error is an *Error.
func Parse(file string, data []byte) (*Config, error) {
	c, mistakes := read(file, data)
	if len(mistakes) > 0 {
		return nil, mistakes[0]
	}
	return c, nil
}

// Check returns all mistakes in a configuration, by line; but of text that is no TOML and
// values of the wrong type, which hide the others, only those and settings that are unknown.
func Check(file string, data []byte) []*Error {
	_, mistakes := Review(file, data)
	return mistakes
}

// Review is Check, and returns what could be made of the configuration in spite of its
// mistakes, for those who look for more; nil if that is nothing.
func Review(file string, data []byte) (*Config, []*Error) {
	c, mistakes := read(file, data)
	byLine(mistakes)
	return c, mistakes
}

// read is Review, with the mistakes in the order in which they were found.
func read(file string, data []byte) (*Config, []*Error) {
	p := &parser{file: file, lines: map[string]int{}}
	root, err := readTOML(data)
	if err != nil {
		err.File = file
		return nil, []*Error{err}
	}
	var f fileTOML
	var fill filler
	fill.fill(root, "", fileSettings(&f))
	p.mistakes = fill.mistakes()
	for _, m := range p.mistakes {
		m.File = file
	}
	if len(fill.wrong) > 0 {
		return nil, p.mistakes
	}
	root.lines("", p.lines)
	c := p.config(&f)
	return c, p.mistakes
}

// parser turns the decoded file into a Config, which is of use only if it found no
// mistakes. It goes on after each, as far as what follows does not depend on it.
type parser struct {
	file     string
	lines    map[string]int
	before   []Volume // that were read
	mistakes []*Error
}

// mistake notes one, in the line of the first of keys that the file sets.
func (p *parser) mistake(hint, msg string, keys ...string) {
	e := &Error{File: p.file, Msg: msg, Hint: hint}
	for _, k := range keys {
		if line := p.lines[k]; line > 0 {
			e.Line = line
			break
		}
	}
	p.mistakes = append(p.mistakes, e)
}

func (p *parser) config(f *fileTOML) *Config {
	c := &Config{File: p.file, Timeout: DefaultTimeout, Retry: DefaultRetry, Shell: f.Shell, AWS: f.AWS}
	if f.Timeout != "" {
		d, err := parseTimeout(f.Timeout)
		if err != nil {
			p.mistake("", err.Error(), "timeout")
		}
		c.Timeout = d
	}
	if f.Retry != "" {
		d, err := time.ParseDuration(f.Retry)
		if err != nil || d < 0 || d > 0 && d < leastRetry {
			p.mistake("write 5m, or 0s for never", fmt.Sprintf("retry_every %q is neither 0s nor a duration of %v or more", f.Retry, leastRetry), "retry_every")
		}
		c.Retry = d
	}
	p.aws(&c.AWS)
	var shared *Key
	if f.Key != nil {
		shared = p.key(f.Key, "key")
	}
	if len(f.Volume) == 0 {
		p.mistakes = append(p.mistakes, &Error{File: p.file, Msg: "no [[volume]]", Hint: "add one, or remove the file and rebuild the initramfs"})
	}
	for i := range f.Volume {
		p.before = append(p.before, *p.volume(&f.Volume[i], fmt.Sprintf("volume[%d]", i), shared))
	}
	c.Volumes = p.before
	p.together(c.Volumes)
	return c
}

func parseTimeout(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("timeout %q is not a duration such as 90s or 5m", text)
	}
	return d, nil
}

func (p *parser) aws(a *AWS) {
	for _, service := range slices.Sorted(maps.Keys(a.Endpoint)) {
		text := a.Endpoint[service]
		at := "aws.endpoint." + service
		if known := Services(); !slices.Contains(known, service) {
			p.mistake("endpoints are "+source.List("and", known), fmt.Sprintf("unknown service %q", service), at, "aws.endpoint")
			continue
		}
		secure := strings.HasPrefix(text, "https://")
		if !secure && (service != "imds" || !strings.HasPrefix(text, "http://")) {
			p.mistake("only imds is spoken to without TLS", fmt.Sprintf("endpoint %q does not begin with https://", text), at, "aws.endpoint")
			continue
		}
		if u, err := url.Parse(text); err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Path != "" && u.Path != "/" {
			p.mistake("use the form https://HOST", fmt.Sprintf("endpoint of %s is not a host's URL", service), at, "aws.endpoint")
		}
	}
	if a.Proxy != "" {
		u, err := url.Parse(a.Proxy)
		if err != nil || u.Hostname() == "" || u.Port() == "" || a.Proxy != "http://"+u.Host { // which may hold a password: it is not shown
			p.mistake("use the form http://HOST:PORT; a proxy that asks for a password cannot be used", "proxy is not of the form http://HOST:PORT", "aws.proxy")
		}
	}
	if a.CABundle != "" && !path.IsAbs(a.CABundle) {
		p.mistake("", fmt.Sprintf("ca_bundle %q is not an absolute path", a.CABundle), "aws.ca_bundle")
	}
	if a.Region != "" && !validRegion(a.Region) {
		p.mistake("use the form us-east-1", fmt.Sprintf("region %q cannot be one", a.Region), "aws.region")
	}
}

// key returns nil if nothing can be said about the key.
func (p *parser) key(k *keyTOML, at string) *Key {
	if k.Source == "" {
		p.mistake("set source to "+source.Forms("or", source.Any), "the key has no source", at)
		return nil
	}
	src, err := source.Parse(k.Source)
	if err != nil {
		p.mistake("sources are "+source.Forms("and", source.Any), err.Error(), at+".source")
		return nil
	}
	if k.VersionID != "" {
		if !src.Kind.Pins {
			p.mistake("", "version_id is for "+pinning()+" sources only", at+".version_id")
		}
		src.Version = k.VersionID
	}
	key := &Key{Source: src, Context: maps.Clone(k.Context), Attest: k.Attest}
	names, err := stringOrList(k.KMSKey)
	if err != nil {
		p.mistake("", "kms_key is neither a string nor an array of strings", at+".kms_key")
	}
	folded := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(key.Context)) {
		where := at + ".context." + name
		if name == "" || name == ContextSet {
			p.mistake("choose another name", fmt.Sprintf("context name %q is unlock's own", name), where, at+".context")
		}
		if other, ok := folded[strings.ToLower(name)]; ok {
			p.mistake("IAM does not tell them apart", fmt.Sprintf("context names %q and %q differ in capitals only", other, name), where, at+".context")
		}
		folded[strings.ToLower(name)] = name
		if _, err := Parts(key.Context[name]); err != nil {
			p.mistake("write $${ for the text ${ itself", err.Error(), where, at+".context")
		}
	}
	if src.Kind == source.Ephemeral {
		if len(names) > 0 || len(key.Context) > 0 {
			p.mistake("remove kms_key and context", "an ephemeral key never goes to KMS", at+".kms_key", at+".context")
		}
		if key.Attest {
			p.mistake("remove attest", "an ephemeral key is not attested: it never goes to KMS", at+".attest")
		}
		return key
	}
	if len(names) == 0 && err == nil {
		p.mistake("set kms_key to the ARN of the key that must have encrypted the passphrase", "kms_key is missing", at+".source")
	}
	for _, name := range names {
		a, err := parseKMSKey(name)
		if err != nil {
			p.mistake("use the form arn:aws:kms:REGION:ACCOUNT:key/ID (aws kms describe-key prints it)", err.Error(), at+".kms_key")
		}
		key.KMSKeys = append(key.KMSKeys, a)
	}
	return key
}

// Services lists those whose endpoints can be set.
func Services() []string {
	list := []string{"kms"}
	for _, k := range source.Kinds {
		if k.Remote != nil {
			list = append(list, k.Name)
		}
	}
	return append(list, "imds")
}

// pinning names the kinds of source that take version_id.
func pinning() string {
	var names []string
	for _, k := range source.Kinds {
		if k.Pins {
			names = append(names, k.Name)
		}
	}
	return source.List("and", names)
}

// parseKMSKey reads a KMS key's ARN: arn:PARTITION:kms:REGION:ACCOUNT:key/ID.
func parseKMSKey(text string) (arn.ARN, error) {
	a, err := arn.Parse(text)
	if err == nil && strings.HasPrefix(a.Resource, "alias/") {
		return a, fmt.Errorf("kms_key %q is an alias, which can be moved to another key", text)
	}
	id, ok := strings.CutPrefix(a.Resource, "key/")
	if err != nil || a.Service != "kms" || !validRegion(a.Region) || a.Account == "" || !ok || !validKeyID(id) {
		return a, fmt.Errorf("kms_key %q is not the ARN of a KMS key", text)
	}
	return a, nil
}

// validKeyID reports whether a text may be the id of a KMS key: a policy that names
// it must mean that key alone.
func validKeyID(id string) bool {
	return id != "" && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// validRegion reports whether a text may be a region. It becomes part of host names.
func validRegion(r string) bool {
	return r != "" && len(r) <= 32 && strings.Trim(r, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// stringOrList returns the strings of a value that is one or several, or is not there.
func stringOrList(n *node) ([]string, error) {
	if n == nil {
		return nil, nil
	}
	if n.kind == unstable.String {
		return []string{n.text}, nil
	}
	var list []string
	for _, b := range n.below {
		if b.kind != unstable.String {
			return nil, errors.ErrUnsupported
		}
		list = append(list, b.text)
	}
	if n.kind != unstable.Array {
		return nil, errors.ErrUnsupported
	}
	return list, nil
}

func (p *parser) volume(t *volumeTOML, at string, shared *Key) *Volume {
	v := &Volume{Line: p.lines[at], Name: t.Name, Count: t.Count, Filesystem: t.Filesystem,
		Mount: t.Mount, MountOptions: t.MountOptions, Discard: t.Discard, Grow: t.Grow, Required: true}
	if t.Required != nil {
		v.Required = *t.Required
	}
	fail := func(setting, hint, format string, args ...any) {
		p.mistake(hint, fmt.Sprintf(format, args...), at+"."+setting, at)
	}
	if err := checkName(v.Name); err != nil {
		fail("name", "names are letters, digits, '.', '_', '+' and '-', as in /dev/mapper/NAME", "%v", err)
	}
	var err error
	if t.Device == "" {
		fail("device", "selectors are "+selectorForms, "volume %q has no device", v.Name)
	} else if v.Device, err = parseSelector(t.Device); err != nil {
		fail("device", "selectors are "+selectorForms, "%v", err)
	}
	known := v.Device.Kind != SelectInvalid // else it is of no use to hold others against it
	if v.Format, err = oneOf(t.Format, map[string]Format{"": FormatNever, "never": FormatNever, "blank": FormatBlank, "ephemeral": FormatEphemeral}); err != nil {
		fail("format", "format is never, blank or ephemeral", "%v", err)
	}
	if v.Layout, err = oneOf(t.Layout, map[string]Layout{"": LayoutStripe, "stripe": LayoutStripe, "separate": LayoutSeparate,
		"mirror": LayoutMirror, "stripe+mirror": LayoutStripeMirror}); err != nil {
		fail("layout", "layout is stripe, separate, mirror or stripe+mirror", "%v", err)
	}
	mirror := v.Layout == LayoutMirror || v.Layout == LayoutStripeMirror
	if mirror && v.Format == FormatEphemeral {
		fail("layout", "use stripe: what is lost with a disk is new at the next boot anyway", "an ephemeral volume is not mirrored")
	}
	if v.Layout == LayoutMirror && v.Count == 1 || v.Layout == LayoutStripeMirror && v.Count > 0 && (v.Count < 4 || v.Count%2 != 0) {
		fail("count", "a mirror has 2 disks or more, stripe+mirror 4 or more, in pairs", "layout %s cannot have %d disks", t.Layout, v.Count)
	}
	if v.OnFailure, err = oneOf(t.OnFailure, map[string]OnFailure{"": FailStop, "stop": FailStop, "prompt": FailPrompt, "reboot": FailReboot}); err != nil {
		fail("on_failure", "on_failure is stop, prompt or reboot", "%v", err)
	}
	if v.MayBeAbsent, err = oneOf(t.Absent, map[string]bool{"": false, "stop": false, "allow": true}); err != nil {
		fail("absent", "absent is stop or allow", "%v", err)
	}
	if t.Absent != "" && !v.Required {
		fail("absent", "remove one of the two", "absent is for required volumes, and required is false")
	}
	if t.Absent != "" && v.Device.Kind == SelectFile {
		fail("absent", "remove absent", "a volume in a file has no disk that could be absent")
	}
	if t.OnFailure != "" && !v.Required {
		fail("on_failure", "remove one of the two", "on_failure is for required volumes, and required is false")
	}
	if known && t.Layout != "" && v.Device.Single() {
		fail("layout", "remove layout", "%s is one device", v.Device)
	}
	if v.Count < 0 || known && v.Count > 0 && v.Device.Single() {
		fail("count", "count is how many instance-store disks the volume has", "count %d does not fit device %s", v.Count, v.Device)
	}
	if _, err := oneOf(v.Filesystem, map[string]bool{"": true, "ext4": true, "ext3": true, "xfs": true, "btrfs": true, "swap": true}); err != nil {
		fail("filesystem", "filesystem is ext4, ext3, xfs, btrfs or swap", "%v", err)
	}
	if v.Mount != "" {
		if !path.IsAbs(v.Mount) || path.Clean(v.Mount) != v.Mount || v.Mount == "/" {
			fail("mount", "", "mount %q is not an absolute path below /", v.Mount)
		}
		if v.Filesystem == "" || v.Filesystem == "swap" {
			fail("mount", "set filesystem to ext4, ext3, xfs or btrfs", "volume %q has a mount point but no file system", v.Name)
		}
		if v.Layout == LayoutSeparate {
			fail("mount", "give each disk a [[volume]] of its own with device = \"instance-store:N\"", "separate disks cannot share one mount point")
		}
	}
	if v.MountOptions != "" && v.Mount == "" {
		fail("mount_options", "", "mount_options without mount")
	}
	if v.Device.Kind == SelectShare {
		p.share(v, t, fail)
	}
	p.files(v, t, at, fail)
	if v.Grow && v.Mount == "" {
		fail("grow", "set mount, or remove grow: the mapping itself always has the size of the disk", "grow is for a file system, and volume %q has no mount point", v.Name)
	}
	if v.Grow && (v.Device.Kind == SelectInstanceStore || v.Device.Kind == SelectFile) {
		fail("grow", "remove grow", "%s does not become larger", v.Device)
	}
	if digits, ok := strings.CutSuffix(t.Size, "%"); ok && v.Device.Kind == SelectShare {
		if v.Percent, err = strconv.ParseInt(digits, 10, 16); err != nil || v.Percent < 1 || v.Percent > 100 {
			fail("size", "write 1% to 100%", "%q is not a share", t.Size)
		}
	} else if v.Size, err = parseSize(t.Size); err != nil {
		fail("size", "write a number and KiB, MiB, GiB or TiB", "%v", err)
	}
	if v.Device.Kind == SelectShare {
		if v.Size > 0 && v.Size < LeastShare {
			fail("size", "make it larger", "a share of %d bytes is too small", v.Size)
		}
		return v
	}
	if file := v.Device.Kind == SelectFile; known && file != (t.Size != "") {
		if file {
			fail("device", "set size, for example \"20GiB\"", "file-backed volume %q has no size", v.Name)
		}
		fail("size", "", "size is for file-backed volumes only")
	}
	p.volumeKey(v, t, at, shared)
	return v
}

// volumeKey settles which key the volume has and whether it fits the format policy.
func (p *parser) volumeKey(v *Volume, t *volumeTOML, at string, shared *Key) {
	switch {
	case t.Key != nil:
		k := p.key(t.Key, at+".key")
		if k == nil {
			return
		}
		v.Key = *k
	case v.Format == FormatEphemeral:
		v.Key = Key{Source: source.Ephemeral.Source()}
	case shared != nil:
		v.Key = *shared
	default:
		if p.lines["key"] == 0 { // else its mistake is known
			p.mistake("add [key] or [volume.key]", fmt.Sprintf("volume %q has no key", v.Name), at)
		}
		return
	}
	v.Key.Context = ofVolume(v.Key.Context, v.Name)
	ephemeral := v.Key.Source.Kind == source.Ephemeral
	if ephemeral != (v.Format == FormatEphemeral) {
		p.mistake("use source = \"ephemeral\" with format = \"ephemeral\", and neither without the other",
			fmt.Sprintf("volume %q: format and key source do not fit", v.Name), at+".format", at+".key.source", at)
	}
	if ephemeral && v.Device.Kind != SelectInvalid && v.Device.Kind != SelectInstanceStore {
		p.mistake("use device = \"instance-store\"", "ephemeral volumes are made on instance store only", at+".device")
	}
}

// together checks what only shows with all volumes in view.
func (p *parser) together(volumes []Volume) {
	names, mounts := map[string]int{}, map[string]int{}
	for i, v := range volumes {
		at := fmt.Sprintf("volume[%d]", i)
		if first, ok := names[v.Name]; ok && v.Name != "" {
			p.mistake("give each volume a name of its own",
				fmt.Sprintf("volume %q is there already, in line %d", v.Name, volumes[first].Line), at+".name")
		}
		for j, w := range volumes {
			rest, ok := strings.CutPrefix(v.Name, w.Name)
			if _, err := strconv.ParseUint(rest, 10, 16); ok && j != i && w.Layout == LayoutSeparate && err == nil {
				p.mistake("rename one of them",
					fmt.Sprintf("volume %q clashes with a disk of separate volume %q", v.Name, w.Name), at+".name")
			}
		}
		names[v.Name] = i
		for _, w := range volumes[:i] {
			if k := v.Key.Source; k.Kind != nil && k.Kind.Sealed() && k == w.Key.Source && !maps.Equal(v.Key.Context, w.Key.Context) {
				p.mistake("give each a source of its own, or both one context", fmt.Sprintf("volumes %q and %q have one ciphertext and two encryption contexts, with one of which it was encrypted", w.Name, v.Name), at+".key.context", at)
			}
		}
		p.apart(volumes[:i+1], at)
		p.divided(volumes, i, at)
		if first, ok := mounts[v.Mount]; ok && v.Mount != "" {
			p.mistake("", fmt.Sprintf("mount point %s is taken by the volume in line %d", v.Mount, volumes[first].Line), at+".mount")
		}
		mounts[v.Mount] = i
	}
}

func oneOf[T any](text string, values map[string]T) (T, error) {
	v, ok := values[text]
	if !ok {
		return v, fmt.Errorf("%q is not a known value", text)
	}
	return v, nil
}

// maxName keeps CRYPT-LUKS2-UUID-NAME within the kernel's 128 bytes, with room
// for the number of a separate disk.
const maxName = 64

func checkName(name string) error {
	if name == "" {
		return errors.New("a volume has no name")
	}
	if len(name) > maxName || name[0] == '-' || name[0] == '.' || name == "control" {
		return fmt.Errorf("%q cannot be the name of a volume", name)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("._+-", rune(c)) {
			return fmt.Errorf("%q cannot be the name of a volume", name)
		}
	}
	return nil
}

// parseSize reads "20GiB"; "" is 0.
func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
			if err == nil && n > 0 {
				return n << (10 * (i + 1)), nil
			}
		}
	}
	return 0, fmt.Errorf("%q is not a size such as 20GiB", text)
}
