package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"unlock/internal/config"
	"unlock/internal/keys/source"
)

const arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

const whole = `timeout = "3m"

[key]
source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
kms_key = "` + arn + `"
[key.context]
purpose = "secretfs"

[aws]
ca_bundle = "/etc/unlock/ca.pem"
endpoint  = { kms = "https://vpce-1.kms.us-east-1.vpce.amazonaws.com" }

[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"

[[volume]]
name     = "scratch"
device   = "ebs:/dev/sdf"
required = false
filesystem = "xfs"
mount    = "/scratch"
grow     = true
key      = { source = "header", kms_key = ["` + arn + `"], attest = true }
`

func TestParse(t *testing.T) {
	c, err := config.Parse("unlock.toml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Volumes) != 2 || c.Timeout != 3*time.Minute {
		t.Fatalf("Parse = %d volumes, timeout %v, want 2, 3m", len(c.Volumes), c.Timeout)
	}
	v := c.Volumes[0]
	if v.Line != 13 || v.Format != config.FormatBlank || !v.Required || v.Device.String() != "instance-store" {
		t.Errorf("first volume = %+v", v)
	}
	if bucket, key := v.Key.Source.Bucket, v.Key.Source.Name; bucket != "an-internalstoragekeybucket" || key != "LuksInternalStorageKey" {
		t.Errorf("bucket, key = %q, %q", bucket, key)
	}
	if v.Key.Context["purpose"] != "secretfs" || v.Key.KMSKeys[0].String() != arn {
		t.Errorf("key = %+v", v.Key)
	}
	w := c.Volumes[1]
	if !w.Key.Attest || v.Key.Attest || !c.Attests() || w.Key.Equal(config.Key{Source: w.Key.Source, KMSKeys: w.Key.KMSKeys}) {
		t.Errorf("attested: %v, want the second only", []bool{v.Key.Attest, w.Key.Attest})
	}
	if !w.Grow || v.Grow || w.Required || w.Key.Source != source.Header.Source() || w.Device != (config.Selector{Kind: config.SelectEBS, Value: "sdf"}) {
		t.Errorf("second volume = %+v", w)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("unlock.toml", []byte(volume(`name = "a"`, `device = "instance-store"`, `format = "blank"`, `filesystem = "ext4"`, `mount = "/a"`,
		`absent = "allow"`, `mount_options = "nofail,x-gvfs-hide,noatime"`, `mkfs_options = "-q -m0 -L data"`, `owner = "postgres:26"`, `mode = "1770"`,
		`[[volume.bind]]`, `path = "/var/lib/containerd"`, `[[volume.bind]]`, `path = "/var/log/pods"`, `from = "logs/pods"`, `seed = true`)))
	if err != nil {
		t.Fatal(err)
	}
	v := c.Volumes[0]
	if v.Owner != "postgres:26" || v.Mode != 0o1770 || !slices.Equal(v.MakeOptions, []string{"-m", "0", "-L", "data"}) {
		t.Errorf("the volume is %+v", v)
	}
	if want := []config.Bind{{16, "/var/lib/containerd", "containerd", false}, {18, "/var/log/pods", "logs/pods", true}}; !slices.Equal(v.Binds, want) {
		t.Errorf("binds are %+v, want %+v", v.Binds, want)
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("unlock.toml", []byte(volume(`name = "store"`, `device = "instance-store"`, `format = "blank"`, `absent = "allow"`,
		`[[volume]]`, `name = "a"`, `device = "share:store"`, `size = "30%"`, `filesystem = "xfs"`, `mount = "/a"`, `mkfs_options = "-L a"`,
		`[[volume]]`, `name = "b"`, `device = "share:store"`, `size = "200GiB"`, `filesystem = "ext4"`, `mount = "/b"`, `owner = "daemon"`,
		`[[volume]]`, `name = "c"`, `device = "share:store"`)))
	if err != nil {
		t.Fatal(err)
	}
	a, b, rest := c.Volumes[1], c.Volumes[2], c.Volumes[3]
	if a.Percent != 30 || b.Size != 200<<30 || rest.Percent != 0 || rest.Size != 0 {
		t.Errorf("shares are %+v", c.Volumes[1:])
	}
	if a.Device.String() != "share:store" || a.Format != config.FormatBlank || !a.Required || !a.MayBeAbsent || !a.Key.Equal(c.Volumes[0].Key) {
		t.Errorf("a share takes nothing from its whole: %+v", a)
	}
}

// TestDeployed: the example for nodes of Kubernetes is in order.
func TestDeployed(t *testing.T) {
	t.Parallel()
	c, err := config.Load("../../deploy/kubernetes/unlock.toml", "")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.Volumes[0].Binds); n != 4 {
		t.Errorf("it binds %d directories, want 4", n)
	}
}

// volume returns a configuration whose [[volume]] stands in line 5, its
// settings following.
func volume(settings ...string) string {
	return "[key]\nsource = \"header\"\nkms_key = \"" + arn + "\"\n\n[[volume]]\n" + strings.Join(settings, "\n") + "\n"
}

func TestMistakes(t *testing.T) {
	ok := []string{`name = "a"`, `device = "instance-store"`}
	fs := []string{ok[0], ok[1], `format = "blank"`, `filesystem = "ext4"`, `mount = "/mnt/a"`}
	for name, row := range map[string]struct {
		text string
		line int
		msg  string
	}{
		"unknown setting":       {volume(append(ok, `formt = "blank"`)...), 8, `unknown setting "volume.formt"`},
		"unknown table":         {volume(ok...) + "[keys]\nx = 1\n", 8, `unknown setting "keys"`},
		"no TOML":               {volume(append(ok, `format = `)...), 8, "at start of value"},
		"no time":               {"timeout = 3\n" + volume(ok...), 1, "timeout cannot be an integer, only a string"},
		"no table":              {volume(ok...) + "[[aws]]\nfips = true\n", 8, "aws cannot be an array of tables, only a table"},
		"no tables":             {"volume = [{ name = \"a\" }, 3]\n", 1, "volume cannot be an array, only an array of tables"},
		"too many":              {volume(append(ok, `count = 99999999999999999999`)...), 8, "volume.count cannot be 99999999999999999999"},
		"context of numbers":    {volume(ok...) + "[key.context]\nyear = 2020\n", 9, "key.context.year cannot be an integer, only a string"},
		"kms_key, a table":      {strings.Replace(volume(ok...), `"`+arn+`"`, "{}", 1), 3, "neither a string nor"},
		"kms_key, numbers":      {strings.Replace(volume(ok...), `"`+arn+`"`, "[1]", 1), 3, "neither a string nor"},
		"table twice":           {volume(ok...) + "[key]\n", 8, "key is there already, as a table in line 1"},
		"a value of a table":    {volume(ok...) + "[key.source]\n", 8, "source is there already, as a string in line 2"},
		"capitals":              {volume(append(ok, `Count = 2`)...), 8, `unknown setting "volume.Count"`},
		"open string":           {volume(append(ok, `mount = "/a`)...), 8, "basic string"},
		"open at the end":       {"[key", 1, ""},
		"many lines":            {volume(`name = "a"`, "device = [", `"a",`, "]"), 7, "volume.device cannot be an array, only a string"},
		"tables in lines":       {volume(append(fs, "bind = [", `{ path = "/a" },`, `{ path = "b" },`, "]")...), 13, "absolute path"},
		"wrong type":            {volume(append(ok, `count = "two"`)...), 8, "cannot"},
		"twice the same":        {volume(append(ok, `name = "b"`)...), 8, "already"},
		"no volume":             {"timeout = \"1m\"\n", 0, "no [[volume]]"},
		"missing key":           {"\n[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n", 2, `volume "a" has no key`},
		"missing kms_key":       {"[key]\nsource = \"header\"\n" + "[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n", 2, "kms_key is missing"},
		"alias":                 {strings.Replace(volume(ok...), "key/1234abcd", "alias/1234abcd", 1), 3, "is an alias"},
		"no ARN":                {strings.Replace(volume(ok...), arn, "1234abcd-12ab-34cd-56ef-1234567890ab", 1), 3, "is not the ARN"},
		"unknown source":        {strings.Replace(volume(ok...), "header", "https://example.com", 1), 2, "not a key source"},
		"bucket without object": {strings.Replace(volume(ok...), "header", "s3://bucket", 1), 2, "is not s3://BUCKET/KEY"},
		"relative file":         {strings.Replace(volume(ok...), "header", "file:key.bin", 1), 2, "absolute path"},
		"unknown variable":      {volume(ok...) + "[key.context]\nfine = \"${instance-id}\"\nhost = \"${hostname}\"\n", 10, `"${hostname}" has a ${ that is none of ${instance-id}, ${account}, ${region} and ${volume}`},
		"open variable":         {volume(ok...) + "[key.context]\nhost = \"${region\"\n", 9, `"${region" has a ${`},
		"variable of a volume":  {volume(append(ok, `key = { source = "header", kms_key = "`+arn+`", context = { host = "${Region}" } }`)...), 8, `"${Region}" has a ${`},
		"one ciphertext":        {strings.Replace(volume(ok...), `"header"`, `"s3://a-bucket/k"`, 1) + "[[volume]]\nname = \"b\"\ndevice = \"/dev/vdb\"\n[key.context]\nfor = \"${volume}\"\n", 8, "one ciphertext and two encryption contexts"},
		"reserved context":      {volume(ok...) + "[key.context]\n\"unlock:set\" = \"x\"\n", 9, "unlock's own"},
		"no name":               {volume(`device = "instance-store"`), 5, "no name"},
		"name with a slash":     {volume(`name = "a/b"`, ok[1]), 6, "cannot be the name"},
		"name control":          {volume(`name = "control"`, ok[1]), 6, "cannot be the name"},
		"two of one name":       {volume(append(ok, "[[volume]]", ok[0], `device = "/dev/vdb"`)...), 9, "line 5"},
		"clash with separate": {volume(append(ok, `layout = "separate"`, "[[volume]]", `name = "a1"`,
			`device = "/dev/vdb"`)...), 10, "clashes"},
		"unknown selector":       {volume(ok[0], `device = "instancestore"`), 7, `unknown device selector "instancestore"`},
		"selector without value": {volume(ok[0], `device = "UUID="`), 7, "names nothing"},
		"disk number":            {volume(ok[0], `device = "instance-store:01"`), 7, "not a disk number"},
		"path outside dev":       {volume(ok[0], `device = "/etc/passwd"`), 7, "below /dev"},
		"path with dots":         {volume(ok[0], `device = "/dev/../sda"`), 7, "below /dev"},
		"unknown format":         {volume(append(ok, `format = "always"`)...), 8, `"always"`},
		"unknown file system":    {volume(append(ok, `filesystem = "ntfs"`)...), 8, `"ntfs"`},
		"relative mount":         {volume(append(ok, `filesystem = "ext4"`, `mount = "mnt"`)...), 9, "absolute path"},
		"mount on the root":      {volume(append(ok, `filesystem = "ext4"`, `mount = "/"`)...), 9, "absolute path below /"},
		"mount without fs":       {volume(append(ok, `mount = "/mnt"`)...), 8, "no file system"},
		"mirror of one":          {volume(ok[0], `device = "instance-store"`, "count = 1", `layout = "mirror"`), 8, "layout mirror cannot have 1 disks"},
		"mirrors of three":       {volume(ok[0], `device = "instance-store"`, "count = 3", `layout = "stripe+mirror"`), 8, "layout stripe+mirror cannot have 3 disks"},
		"mirror of a name":       {volume(ok[0], `device = "/dev/vdb"`, `layout = "mirror"`), 8, "one device"},
		"layout of one":          {volume(ok[0], `device = "/dev/vdb"`, `layout = "stripe"`), 8, "one device"},
		"count of one":           {volume(ok[0], `device = "/dev/vdb"`, `count = 2`), 8, "count 2"},
		"file without size":      {volume(ok[0], `device = "file:/var/secretfs"`), 7, "no size"},
		"size of a disk":         {volume(append(ok, `size = "1GiB"`)...), 8, "file-backed"},
		"ephemeral with KMS":     {volume(append(ok, `format = "ephemeral"`, `key = { source = "header", kms_key = "`+arn+`" }`)...), 8, "do not fit"},
		"ephemeral on EBS":       {volume(ok[0], `device = "ebs:sdf"`, `format = "ephemeral"`), 7, "instance store only"},
		"attested ephemeral":     {"[key]\nsource = \"ephemeral\"\nattest = true\n[[volume]]\nname = \"a\"\ndevice = \"instance-store\"\nformat = \"ephemeral\"\n", 3, "never goes to KMS"},
		"attested, a volume's":   {volume(append(ok, `format = "ephemeral"`, `key = { source = "ephemeral", attest = true }`)...), 9, "never goes to KMS"},
		"attested by a word":     {strings.Replace(volume(ok...), "\n\n", "\nattest = \"yes\"\n", 1), 4, "cannot"},
		"grow instance store":    {volume(append(ok, `filesystem = "ext4"`, `mount = "/mnt"`, `grow = true`)...), 10, "instance-store does not become larger"},
		"grow a file":            {volume(ok[0], `device = "file:/x"`, `size = "1GiB"`, `filesystem = "ext4"`, `mount = "/mnt"`, `grow = true`), 11, "file:/x does not become larger"},
		"grow without mount":     {volume(ok[0], `device = "ebs:sdf"`, `filesystem = "ext4"`, `grow = true`), 9, "no mount point"},
		"mount option":           {volume(append(fs, `mount_options = "noatime,nofial"`)...), 11, `no mount option "nofial"`},
		"nofail of required":     {volume(append(fs, `mount_options = "nofail"`)...), 11, "the volume is required"},
		"subvol of what is made": {volume(append(ok, `format = "blank"`, `filesystem = "btrfs"`, `mount = "/b"`, `mount_options = "subvol=x"`)...), 11, "no subvol"},
		"mkfs option":            {volume(append(fs, `mkfs_options = "-t ext2"`)...), 11, `takes no "-t"`},
		"mkfs of nothing":        {volume(append(ok, `format = "blank"`, `mkfs_options = "-m 0"`)...), 9, "without filesystem"},
		"mkfs, never":            {volume(append(ok, `filesystem = "ext4"`, `mkfs_options = "-m 0"`)...), 9, `format is "never"`},
		"owner":                  {volume(append(fs, `owner = "a b"`)...), 11, `owner "a b"`},
		"owner, three":           {volume(append(fs, `owner = "a:b:c"`)...), 11, `owner "a:b:c"`},
		"owner, never":           {volume(append(ok, `filesystem = "ext4"`, `mount = "/a"`, `owner = "a"`)...), 10, `format is "never"`},
		"owner of no mount":      {volume(append(ok, `format = "blank"`, `filesystem = "ext4"`, `owner = "a"`)...), 10, "no mount point"},
		"owner of ro":            {volume(append(fs, `owner = "a"`, `mount_options = "ro"`)...), 12, "no owner"},
		"mode":                   {volume(append(fs, `mode = "rwx"`)...), 11, `mode "rwx"`},
		"mode, decimal":          {volume(append(fs, `mode = "0789"`)...), 11, `mode "0789"`},
		"bind without mount":     {volume(append(ok, `[[volume.bind]]`, `path = "/a"`)...), 9, "no mount point"},
		"bind without path":      {volume(append(fs, `[[volume.bind]]`, `seed = true`)...), 11, "has no path"},
		"bind, relative":         {volume(append(fs, `[[volume.bind]]`, `path = "a"`)...), 12, "absolute path"},
		"bind of the root":       {volume(append(fs, `[[volume.bind]]`, `path = "/"`)...), 12, "absolute path"},
		"bind below run":         {volume(append(fs, `[[volume.bind]]`, `path = "/run/a"`)...), 12, "would not be seen"},
		"bind below mount":       {volume(append(fs, `[[volume.bind]]`, `path = "/mnt/a/b"`)...), 12, "not outside"},
		"bind from above":        {volume(append(fs, `[[volume.bind]]`, `path = "/a"`, `from = "../a"`)...), 13, `from "../a"`},
		"bind, unknown":          {volume(append(fs, `[[volume.bind]]`, `path = "/a"`, `to = "b"`)...), 13, `unknown setting "volume.bind.to"`},
		"bind, inline":           {volume(append(fs, `bind = [{ path = "/a" }, { path = "/b", from = "/b" }]`)...), 11, `from "/b"`},
		"two binds of one path":  {volume(append(fs, `[[volume.bind]]`, `path = "/a"`, `[[volume.bind]]`, `path = "/a"`, `from = "b"`)...), 14, "in line 11"},
		"two binds from one":     {volume(append(fs, `[[volume.bind]]`, `path = "/x/a"`, `[[volume.bind]]`, `path = "/y/a"`)...), 14, "lie in one directory"},
		"bind over a mount":      {volume(append(fs, `[[volume.bind]]`, `path = "/srv"`, `[[volume]]`, `name = "b"`, `device = "/dev/vdb"`, `filesystem = "xfs"`, `mount = "/srv/b"`)...), 17, `covered by path "/srv"`},
		"mount under a bind":     {volume(append(append([]string{`name = "b"`, `device = "/dev/vdb"`, `filesystem = "xfs"`, `mount = "/srv/b"`, `[[volume]]`}, fs...), `[[volume.bind]]`, `path = "/srv"`)...), 17, "would cover the mount point of the volume in line 5"},
		"share of nothing":       {volume(append(ok, `[[volume]]`, `name = "b"`, `device = "share:c"`)...), 10, "none that could be shared"},
		"share before its whole": {volume(append([]string{`name = "b"`, `device = "share:a"`, `[[volume]]`}, ok...)...), 7, "none that could be shared"},
		"share of a share":       {volume(append(ok, `[[volume]]`, `name = "b"`, `device = "share:a"`, `[[volume]]`, `name = "c"`, `device = "share:b"`)...), 13, "none that could be shared"},
		"share with a format":    {volume(append(ok, `[[volume]]`, `name = "b"`, `device = "share:a"`, `format = "blank"`)...), 11, "format is not for a share"},
		"share, size":            {volume(append(ok, `[[volume]]`, `name = "b"`, `device = "share:a"`, `size = "101%"`)...), 11, "not a share"},
		"share, tiny":            {volume(append(ok, `[[volume]]`, `name = "b"`, `device = "share:a"`, `size = "1MiB"`)...), 11, "too small"},
		"percent of a disk":      {volume(append(ok, `size = "10%"`)...), 8, "not a size"},
		"shares, too much":       {volume(append(ok, `[[volume]]`, `name = "b"`, `device = "share:a"`, `size = "60%"`, `[[volume]]`, `name = "c"`, `device = "share:a"`, `size = "50%"`)...), 5, "more than all"},
		"shares, two rests":      {volume(append(ok, `[[volume]]`, `name = "b"`, `device = "share:a"`, `[[volume]]`, `name = "c"`, `device = "share:a"`)...), 5, "have no size"},
		"shares of a mount":      {volume(append(fs, `[[volume]]`, `name = "b"`, `device = "share:a"`)...), 9, "divided into shares"},
		"shares of separate":     {volume(append(ok, `layout = "separate"`, `[[volume]]`, `name = "b"`, `device = "share:a"`)...), 8, "cannot be divided"},
		"unknown on_failure":     {volume(append(ok, `on_failure = "shrug"`)...), 8, `"shrug"`},
		"retry_every":            {"retry_every = \"often\"\n" + volume(ok...), 1, "neither 0s nor a duration"},
		"retry_every, hasty":     {"retry_every = \"1s\"\n" + volume(ok...), 1, "of 10s or more"},
		"absent of optional":     {volume(append(ok, `required = false`, `absent = "allow"`)...), 9, "required is false"},
		"absent of a file":       {volume(`name = "x"`, `device = "file:/x"`, `size = "1GiB"`, `absent = "stop"`), 9, "no disk that could be absent"},
		"absent":                 {volume(append(ok, `absent = "maybe"`)...), 8, `"maybe"`},
		"on_failure of optional": {volume(append(ok, `required = false`, `on_failure = "reboot"`)...), 9, "required is false"},
		"bad timeout":            {"timeout = \"soon\"\n" + volume(ok...), 1, "soon"},
		"endpoint in the clear":  {volume(ok...) + "[aws.endpoint]\nkms = \"http://10.0.0.1\"\n", 9, "https://"},
		"endpoint of ec2":        {volume(ok...) + "[aws.endpoint]\nec2 = \"https://10.0.0.1\"\n", 9, "unknown service"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse("unlock.toml", []byte(row.text))
			var e *config.Error
			if !errors.As(err, &e) {
				t.Fatalf("Parse = %v, want a *config.Error", err)
			}
			if e.File != "unlock.toml" || e.Line != row.line || !strings.Contains(e.Msg, row.msg) {
				t.Errorf("Parse = %v, want line %d, %q", err, row.line, row.msg)
			}
		})
	}
}

func TestCmdline(t *testing.T) {
	file := filepath.Join(t.TempDir(), "unlock.toml")
	if err := os.WriteFile(file, []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		cmdline string
		check   func(*config.Config) bool
		err     string
	}{
		"nothing":         {"quiet root=/dev/nvme0n1p1", func(c *config.Config) bool { return !c.Skip && !c.Debug }, ""},
		"skip":            {"rd.unlock=0", func(c *config.Config) bool { return c.Skip }, ""},
		"not skipped":     {"rd.unlock=0 rd.unlock=1", func(c *config.Config) bool { return !c.Skip }, ""},
		"debug, timeout":  {"rd.unlock.debug rd.unlock.timeout=\"5m\"\n", func(c *config.Config) bool { return c.Debug && c.Timeout == 5*time.Minute }, ""},
		"quoted":          {`dyndbg="file a.c +p rd.unlock=0"`, func(c *config.Config) bool { return !c.Skip }, ""},
		"bad switch":      {"rd.unlock=no", nil, "neither on nor off"},
		"bad timeout":     {"rd.unlock.timeout=-1s", nil, "not a duration"},
		"a key":           {"rd.unlock.key=file:/x", nil, `unknown setting "rd.unlock.key"`},
		"format the root": {"root=/dev/mapper/secretfs ro", nil, file + ":13: volume \"secretfs\" is the root device"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Load(file, row.cmdline)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Fatalf("Load = %v, want %q", err, row.err)
				}
				return
			}
			if err != nil || !row.check(c) {
				t.Fatalf("Load = %+v, %v", c, err)
			}
		})
	}
}

func TestLoadMissing(t *testing.T) {
	_, err := config.Load("/nonexistent/unlock.toml", "")
	var e *config.Error
	if !errors.As(err, &e) || e.Hint == "" {
		t.Fatalf("Load = %v, want a *config.Error with a hint", err)
	}
}

func TestUnedited(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want bool
	}{
		"comments":              {"# one\n\n  # two\n", true},
		"a setting":             {"# one\ntimeout = \"1m\"\n", false},
		"a table":               {"# one\n[key]\n", false},
		"what is no TOML":       {"# one\nhello\n", false},
		"comment after a table": {"[key] # one\n", false},
		"empty":                 {"", false},
		"blank lines":           {"\n \n", false},
		"zeros":                 {"\x00\x00\x00", false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "unlock.toml")
			if err := os.WriteFile(file, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := config.Unedited(file); got != row.want || err != nil {
				t.Errorf("Unedited = %t, %v, want %t", got, err, row.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(volume(`name = "a"`, `device = "instance-store:3"`)))
	f.Add([]byte("volume = [{name = \"a\"}]\n"))
	for _, text := range []string{
		"[key]\n[key]\n", "[key.context]\n[key]\n", "[key]\ncontext.a = \"b\"\ncontext.c = \"d\"\n", "[key]\ncontext.a = \"b\"\n[key.context]\n",
		"[key]\ncontext.a.x = \"b\"\n[key.context.b]\n", "key.a = 1\nkey.a = 2\n", "key.a = 1\nkey.a.b = 2\n", "key = {}\nkey.a = 1\n", "key = {}\n[key]\n",
		"[[volume]]\n[volume.key]\n[[volume]]\n[volume.key]\n", "[[volume]]\n[volume]\n", "volume = []\n[[volume]]\n", "[volume]\n[[volume]]\n",
		"[[volume.bind]]\n[[volume]]\n", "[[volume]]\nbind = []\n[[volume.bind]]\n", "[a.b]\n[a]\nb.c = 1\n", "a = {b = 1, b = 2}\n", "a = {b.c = 1, b.d = 2}\n", "a = [{b = 1, b = 2}]\n",
		"key.a.b = 1\n[key.a.c]\n", "[[volume]]\ncount = 017\n", "[[volume]]\ncount = 0x1_0\n", "[[volume]]\ncount = 99999999999999999999\n", "count = 1_0\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("unlock.toml", data)
		// The library's decoder is the judge of what may stand twice.
		var all map[string]any
		judge := toml.Unmarshal(data, &all)
		if judge != nil && err == nil {
			t.Fatalf("Parse accepted what go-toml refuses: %v", judge)
		}
		var e *config.Error
		if judge == nil && errors.As(err, &e) && (strings.Contains(e.Msg, "is set already") || strings.Contains(e.Msg, "is there already, as")) {
			t.Fatalf("Parse = %v, and go-toml accepts it", err)
		}
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("Parse = %v, want a *config.Error", err)
		}
		if err == nil && (len(c.Volumes) == 0 || c.Timeout <= 0) {
			t.Fatalf("Parse accepted %+v", c)
		}
	})
}
