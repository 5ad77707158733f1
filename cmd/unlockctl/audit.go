package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/audit"
	"unlock/cmd/unlockctl/internal/places"
	"unlock/cmd/unlockctl/internal/trail"
	"unlock/internal/config"
	"unlock/internal/keys/source"
	"unlock/internal/status"
)

type auditCmd struct {
	Trail      []string `arg:"" name:"trail" help:"CloudTrail's files: a directory, a file, s3://BUCKET/PREFIX, - for standard input; or lookup, which asks CloudTrail for the management events of 90 days."`
	awsFlags   `embed:""`
	Config     string            `default:"${config}" placeholder:"FILE" help:"Configuration whose keys are asked about (${config})."`
	Volume     string            `placeholder:"NAME" help:"Only this volume of the configuration."`
	KMSKey     []string          `name:"kms-key" placeholder:"ARN" help:"KMS key, instead of a configuration; may be repeated."`
	Context    map[string]string `mapsep:"," placeholder:"NAME=VALUE,…" help:"KMS encryption context, with --kms-key."`
	Sealed     string            `placeholder:"PLACE" help:"Where the ciphertext is, with --kms-key: ${places}; without it in LUKS headers."`
	Role       []string          `placeholder:"NAME" help:"Role that the instances have; may be repeated. By default any role of an instance will do."`
	Network    []string          `placeholder:"CIDR" help:"Network or address from which instances call, such as that of a NAT gateway; may be repeated."`
	Endpoint   []string          `placeholder:"ID" help:"VPC endpoint through which instances call; may be repeated."`
	Attested   bool              `help:"Calls must be attested."`
	PCR        map[int]string    `name:"pcr" placeholder:"N=HEX" help:"Value that a register must have in attested calls; may be repeated."`
	Window     time.Duration     `default:"15m" help:"How long after its start an instance may use its keys (${default})."`
	Boots      []string          `type:"existingfile" placeholder:"FILE" help:"Starts of instances: the output of aws ec2 describe-instances, or EventBridge's state-change events; may be repeated."`
	Status     string            `type:"existingdir" placeholder:"DIR" help:"Directory with status files of boots, to be matched with the calls."`
	PublicKeys string            `type:"existingfile" placeholder:"FILE" help:"Output of aws cloudtrail list-public-keys, for digests in a copy; those in S3 are verified with what CloudTrail says."`
	Since      string            `placeholder:"TIME" help:"Leave out calls before: a date, a time as in RFC 3339, or how long ago (24h)."`
	Until      string            `placeholder:"TIME" help:"Leave out calls from then on."`
	Report     string            `placeholder:"FILE" help:"Also write a page of HTML."`
	JSON       bool              `xor:"form" help:"Print JSON."`
	CSV        bool              `name:"csv" xor:"form" help:"Print the calls as CSV."`
}

// Run prints the calls and what is wrong with them; exit status 1 if anything is.
func (c *auditCmd) Run(ctx context.Context, con console) error {
	q, cfg, err := c.question()
	if err != nil {
		return err
	}
	a := audit.New(q)
	if err := c.known(a); err != nil {
		return err
	}
	files, aws, err := c.files(ctx, con, cfg, q)
	if err != nil {
		return err
	}
	r, err := c.judge(ctx, con, a, files, aws)
	if err != nil {
		return err
	}
	if c.Report != "" {
		page, err := audit.Page(q, r, strings.Join(os.Args, " "), time.Now())
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.Report, page, 0o644); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	switch {
	case c.JSON:
		err = con.json(r)
	case c.CSV:
		err = audit.CSV(raw(con.out), r)
	default:
		err = audit.Text(raw(con.out), r) // which is plain
	}
	if err == nil && len(r.Findings) > 0 {
		err = errFound
	}
	return err
}

// question puts together what is asked; the configuration is nil if flags say it all.
func (c *auditCmd) question() (audit.Question, *config.Config, error) {
	q := audit.Question{Roles: c.Role, Endpoints: c.Endpoint, Attested: c.Attested, PCRs: c.PCR, Window: c.Window}
	for i, role := range q.Roles { // an ARN will do
		q.Roles[i] = role[strings.LastIndexByte(role, '/')+1:]
	}
	for _, text := range c.Network {
		n, err := netip.ParsePrefix(text)
		if a, aerr := netip.ParseAddr(text); aerr == nil {
			n, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return q, nil, usage(fmt.Sprintf("--network %q is no network", text), "give it as 10.0.0.0/16, or an address")
		}
		q.Networks = append(q.Networks, n)
	}
	var errs [2]error
	q.Since, errs[0] = parseTime("--since", c.Since)
	q.Until, errs[1] = parseTime("--until", c.Until)
	if err := errors.Join(errs[:]...); err != nil {
		return q, nil, err
	}
	if len(c.KMSKey) > 0 {
		k, err := c.byFlags()
		q.Keys = []audit.Key{k}
		return q, nil, err
	}
	if len(c.Context) > 0 || c.Sealed != "" {
		return q, nil, usage("--context and --sealed go with --kms-key", "name the key, or leave them to the configuration")
	}
	cfg, err := config.Load(c.Config, "")
	if err != nil {
		return q, nil, err
	}
	if q.Keys, err = configured(cfg, c.Volume); err != nil {
		return q, nil, err
	}
	if len(q.Keys) == 0 {
		return q, nil, usage(fmt.Sprintf("%s has no volume %q whose key KMS has", c.Config, c.Volume), "")
	}
	return q, cfg, nil
}

func (c *auditCmd) byFlags() (audit.Key, error) {
	src := source.Header.Source()
	if c.Sealed != "" {
		var err error
		if src, err = parsePlace(c.Sealed); err != nil {
			return audit.Key{}, err
		}
	}
	if err := checkContext(c.Context); err != nil {
		return audit.Key{}, err
	}
	k, err := auditKey(config.Key{Source: src, Context: c.Context})
	k.ARNs = c.KMSKey
	return k, err
}

// configured returns the distinct keys of a configuration, or of one of its volumes.
func configured(cfg *config.Config, only string) ([]audit.Key, error) {
	var list []audit.Key
	var seen []config.Key
	for i := range cfg.Volumes {
		v := &cfg.Volumes[i]
		if only != "" && v.Name != only || len(v.Key.KMSKeys) == 0 {
			continue
		}
		k, err := auditKey(v.Key)
		if err != nil {
			return nil, err
		}
		k.Local = v.Device.Kind == config.SelectInstanceStore
		if n := slices.IndexFunc(seen, v.Key.Equal); n >= 0 {
			list[n].Volumes = append(list[n].Volumes, v.Name)
			list[n].Local = list[n].Local && k.Local
			continue
		}
		k.Volumes = []string{v.Name}
		list, seen = append(list, k), append(seen, v.Key)
	}
	return list, nil
}

func auditKey(k config.Key) (audit.Key, error) {
	a := audit.Key{Context: k.Context, Source: k.Source, Bound: k.Source.Kind == source.Header}
	for _, key := range k.KMSKeys {
		a.ARNs = append(a.ARNs, key.String())
	}
	place, err := places.Of(k.Source.Kind)
	a.Trail = place.Trail
	return a, err
}

// parseTime reads a point in time; "" is none.
func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, usage(fmt.Sprintf("%s %q is no time", flag, text), "give it as 2026-03-01, as 2026-03-01T22:00:00Z, or as 24h for a day ago")
}

// known tells a what else is known of boots.
func (c *auditCmd) known(a *audit.Audit) error {
	for _, file := range c.Boots {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = a.AddBoots(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
	}
	if c.Status == "" {
		return nil
	}
	return filepath.WalkDir(c.Status, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := status.Read(path)
		if err == nil {
			a.AddStatus(path, b)
		}
		return err
	})
}

// files lists what is to be read. The account is nil if AWS need not be asked.
func (c *auditCmd) files(ctx context.Context, con console, cfg *config.Config, q audit.Question) ([]trail.File, *account.Account, error) {
	var list []trail.File
	var aws *account.Account
	for _, place := range c.Trail {
		rest, inS3 := strings.CutPrefix(place, "s3://")
		if inS3 || place == "lookup" {
			var err error
			if aws, err = c.account(ctx, cfg); err != nil {
				return nil, nil, err
			}
		}
		var more []trail.File
		var err error
		switch {
		case inS3:
			bucket, prefix, _ := strings.Cut(rest, "/")
			done := con.working("listing " + place)
			more, err = aws.TrailFiles(ctx, bucket, prefix)
			done()
		case place == "lookup":
			var arns []string
			for _, k := range q.Keys {
				arns = append(arns, k.ARNs...)
			}
			slices.Sort(arns)
			more = []trail.File{aws.LookupEvents(slices.Compact(arns), audit.TrailChanges, q.Since, q.Until)}
		case place == "-":
			more = []trail.File{trail.Stream("standard input", con.in)}
		default:
			more, err = trail.Dir(place)
		}
		if err != nil {
			return nil, nil, err
		}
		if len(more) == 0 {
			return nil, nil, usage(fmt.Sprintf("there is no file in %s", place), "CloudTrail delivers below AWSLogs/ACCOUNT/CloudTrail/REGION/")
		}
		list = append(list, more...)
	}
	return list, aws, nil
}

// judge reads the files, holds them against their digests, and judges the calls.
func (c *auditCmd) judge(ctx context.Context, con console, a *audit.Audit, files []trail.File, aws *account.Account) (*audit.Result, error) {
	digests, err := trail.ReadDigests(ctx, files)
	if err != nil {
		return nil, err
	}
	logs := slices.DeleteFunc(slices.Clone(files), func(f trail.File) bool { return trail.IsDigest(f.Name) })
	var p trail.Progress
	done := con.progress(&p, logs)
	read, err := trail.ReadAll(ctx, logs, a.See, &p)
	done()
	if err != nil {
		return nil, err
	}
	for _, f := range read {
		var refused *account.Error
		if errors.As(f.Err, &refused) {
			return nil, refused // what AWS refuses is no fault of the file
		}
	}
	if !digests.Any() {
		return a.Judge(read, nil), nil
	}
	public, err := c.publicKeys(ctx, digests, aws)
	if err != nil {
		return nil, err
	}
	return a.Judge(read, new(digests.Validate(read, public))), nil
}

// publicKeys returns those that CloudTrail signed with; none, if nobody can say.
func (c *auditCmd) publicKeys(ctx context.Context, d *trail.Digests, aws *account.Account) (trail.Keys, error) {
	if c.PublicKeys != "" {
		data, err := os.ReadFile(c.PublicKeys)
		if err != nil {
			return nil, err
		}
		return trail.ParseKeys(data)
	}
	all := trail.Keys{}
	if aws == nil {
		return all, nil
	}
	from, to := d.Span()
	for _, region := range d.Regions() {
		found, err := aws.PublicKeys(ctx, region, from, to)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, found)
	}
	return all, nil
}
