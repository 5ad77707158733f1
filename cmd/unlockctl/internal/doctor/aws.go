package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/measure"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/plan"
)

// patience is how long one answer may take.
const patience = 10 * time.Second

// maxSkew is how wrong the clock may be; AWS refuses signatures after five minutes.
const maxSkew = time.Minute

// imds asks whether there is IMDSv2, a role, and whether version 1 is off; and who the
// instance is, if an encryption context names it.
func (d *Doctor) imds(ctx context.Context, r *report, c *config.Config) (who config.Identity) {
	base := c.AWS.Endpoint["imds"]
	if base == "" {
		base = "http://169.254.169.254"
	}
	status, token, err := d.ask(ctx, http.MethodPut, base+"/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
	switch {
	case err != nil:
		r.add("imds", Fail, "on an instance: enable the metadata service; elsewhere: leave it out with --offline", "no answer: %v", err)
		return who
	case status == http.StatusForbidden:
		r.add("imds", Fail, "aws ec2 modify-instance-metadata-options --http-endpoint enabled", "the metadata service is disabled (403)")
		return who
	case status != http.StatusOK:
		r.add("imds", Fail, "unlock speaks IMDSv2 only", "no IMDSv2 token: %d %s", status, http.StatusText(status))
		return who
	}
	r.add("imds", OK, "", "IMDSv2 answers")
	if status, _, err := d.ask(ctx, http.MethodGet, base+"/latest/meta-data/instance-id", "", ""); err == nil && status == http.StatusOK {
		r.add("imds", Warn, "aws ec2 modify-instance-metadata-options --http-tokens required", "IMDSv1 answers as well: any program that can be made to fetch a URL gets the role's credentials")
	}
	if slices.ContainsFunc(c.Volumes, names) {
		who = d.identity(ctx, r, base, token)
	}
	status, name, err := d.ask(ctx, http.MethodGet, base+"/latest/meta-data/iam/security-credentials/", "X-Aws-Ec2-Metadata-Token", token)
	name = strings.TrimSpace(name)
	if err != nil || status != http.StatusOK || name == "" {
		r.add("role", Fail, "attach an instance profile with the policy that unlockctl policy prints", "the instance has no role (%d)", status)
		return who
	}
	r.add("role", OK, "", "%s", name)
	status, data, err := d.ask(ctx, http.MethodGet, base+"/latest/meta-data/iam/security-credentials/"+url.PathEscape(name), "X-Aws-Ec2-Metadata-Token", token)
	if err != nil || status != http.StatusOK || !strings.Contains(data, `"Success"`) {
		r.add("role", Fail, "see whether the role still exists and trusts ec2.amazonaws.com", "IMDS has no credentials for role %s (%d)", name, status)
	}
	return who
}

// names reports whether a volume's encryption context names the instance.
func names(v config.Volume) bool { return len(config.Variables(v.Key.Context)) > 0 }

// identity asks IMDS who the instance is.
func (d *Doctor) identity(ctx context.Context, r *report, base, token string) config.Identity {
	status, data, err := d.ask(ctx, http.MethodGet, base+"/latest/dynamic/instance-identity/document", "X-Aws-Ec2-Metadata-Token", token)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, http.StatusText(status))
	}
	var i ec2.Instance
	if err == nil {
		i, err = ec2.ParseInstance([]byte(data))
	}
	if err != nil {
		r.add("imds", Fail, "something other than EC2's metadata service answers", "who the instance is, which the encryption context names: %v", err)
		return config.Identity{}
	}
	r.add("imds", OK, "", "the instance is %s, account %s, in %s", i.ID, i.Account, i.Region)
	return i.Identity()
}

// ask makes one request of IMDS. The answer is not kept: it may be credentials.
func (d *Doctor) ask(ctx context.Context, method, address, header, value string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return 0, "", err
	}
	if header != "" {
		req.Header.Set(header, value)
	}
	client := d.IMDS
	if client == nil {
		client = ec2.HTTPClient()
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, string(body), err
}

// aws tries what a boot will ask of AWS.
func (d *Doctor) aws(ctx context.Context, r *report, c *config.Config, headers []*plan.Step, who config.Identity, next *measure.Prediction) {
	a, err := d.Account(ctx, c)
	if err != nil {
		r.add("aws", Fail, "", "%v", err)
		return
	}
	defer a.Close()
	if !d.network(ctx, r, c) {
		return
	}
	d.policies(ctx, r, a, c, next)
	unknown := func(v config.Volume) bool { return names(v) && who == config.Identity{} } // which has been told
	for i, v := range c.Volumes {
		same := func(o config.Volume) bool { return o.Key.Equal(v.Key) && o.Format == v.Format }
		if v.Key.Source.Kind == source.Ephemeral || unknown(v) || slices.ContainsFunc(c.Volumes[:i], same) {
			continue
		}
		v.Key.Context = config.Fill(v.Key.Context, who.Get)
		if v.Key.Source.Kind == source.Header {
			d.dataKey(ctx, r, a, &v)
			continue
		}
		d.sealed(ctx, r, a, &v)
	}
	for _, step := range headers {
		if !unknown(*step.Volume) {
			d.token(ctx, r, a, step, who)
		}
	}
}

// network resolves the names of the endpoints, does the TLS handshake and compares
// clocks.
func (d *Doctor) network(ctx context.Context, r *report, c *config.Config) bool {
	good := true
	for _, u := range endpoints(c) {
		host, by := u.Hostname(), account.Connected(c.AWS, u)
		if err := d.Resolve(ctx, by); err != nil {
			r.add("dns", Fail, "check the VPC's DNS settings (enableDnsSupport, DHCP options) and private hosted zones", "%v", err)
			good = false
			continue
		}
		asking, cancel := context.WithTimeout(ctx, patience)
		date, err := account.Date(asking, c.AWS, u.String())
		cancel()
		var cert *tls.CertificateVerificationError
		switch {
		case errors.As(err, &cert):
			r.add("tls", Fail, "trust the authority with ca_bundle, if the endpoint is yours; else somebody is in between", "%s: %v", host, cert)
			good = false
		case err != nil:
			advice := "check route table, network ACLs and security groups: port 443 to the endpoint, or a VPC endpoint"
			if by != host {
				advice = "check that the proxy is reached, and that it lets this instance connect there"
			}
			r.add("network", Fail, advice, "%s: %v", through(host, by), err)
			good = false
		case time.Until(date).Abs() > maxSkew:
			r.add("clock", Fail, "set the clock (chrony, hwclock --systohc): AWS refuses signatures that are off by 5 minutes", "this machine's clock is %s off", time.Until(date).Abs().Round(time.Minute))
			good = false
		default:
			r.add("network", OK, "", "%s: name, TLS and clock", through(host, by))
		}
	}
	return good
}

// through names a host and the proxy by which it is reached.
func through(host, by string) string {
	if by == host {
		return host
	}
	return host + " through the proxy " + by
}

func (d *Doctor) sealed(ctx context.Context, r *report, a *account.Account, v *config.Volume) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	check := v.Key.Source.Kind.Name
	place, err := a.Place(v.Key.Source, v.Key.KMSKeys[0].String())
	if err != nil {
		r.add(check, Fail, "", "%v", err)
		return
	}
	o, err := place.Read(ctx)
	if err != nil {
		r.add(check, Fail, hint.Of(err), "%v", err)
		return
	}
	r.add(check, OK, "", "%s: a ciphertext of %d bytes", v.Key.Source, len(o.Ciphertext))
	d.decrypt(ctx, r, a, v.Key, o.Ciphertext, v.Key.Context, v.Key.Source.String())
}

// token tries the data key in a header.
func (d *Doctor) token(ctx context.Context, r *report, a *account.Account, step *plan.Step, who config.Identity) {
	if step.Volume.Key.Source.Kind != source.Header {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t := step.Members[0].LUKS.KMS
	if !slices.ContainsFunc(step.Volume.Key.KMSKeys, func(a arn.ARN) bool { return a.String() == t.Key }) {
		r.add("kms", Fail, "if that key is yours, add it to kms_key, or have the data key put under the configured one: unlockctl rotate --kms-key THAT --to CONFIGURED; if not, somebody replaced the token",
			"volume %q: its data key is under %s, which is not in kms_key", step.Name, t.Key)
		return
	}
	ec := keys.Bound(config.Fill(step.Volume.Key.Context, who.Get), step.Set)
	d.decrypt(ctx, r, a, step.Volume.Key, t.Ciphertext, ec, "the header of volume "+step.Name)
}

// decrypt tries, and wipes what comes of it.
func (d *Doctor) decrypt(ctx context.Context, r *report, a *account.Account, key config.Key, ciphertext []byte, ec map[string]string, what string) {
	plaintext, arn, err := a.DecryptAny(ctx, key.KMSKeys, ciphertext, ec)
	if key.Attest {
		plaintext.Wipe()
		refused(r, what, err)
		return
	}
	if err != nil {
		r.add("kms", Fail, hint.Of(err), "%s: %v", what, err)
		return
	}
	defer plaintext.Wipe()
	if plaintext.Bytes()[0] == '\n' {
		r.add("kms", Fail, "seal another one", "the passphrase in %s is empty", what)
		return
	}
	r.add("kms", OK, "", "%s decrypts under %s", what, arn)
}

// dataKey tries whether a new one could be made, without making it.
func (d *Doctor) dataKey(ctx context.Context, r *report, a *account.Account, v *config.Volume) {
	if v.Format != config.FormatBlank {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := a.TryGenerate(ctx, v.Key.KMSKeys[0].String(), keys.Bound(v.Key.Context, "doctor"))
	if v.Key.Attest {
		refused(r, "a data key under "+v.Key.KMSKeys[0].String(), err)
		return
	}
	if err != nil {
		r.add("kms", Fail, hint.Of(err), "%v", err)
		return
	}
	r.add("kms", OK, "", "a data key can be made under %s", v.Key.KMSKeys[0])
}

// endpoints lists what a boot connects to. Those set by hand in the environment are
// asked instead, as package account does.
func endpoints(c *config.Config) []*url.URL {
	var list []*url.URL
	add := func(service string, key arn.ARN) {
		u, err := url.Parse(account.Endpoint(c.AWS, service, key))
		if err == nil && !slices.ContainsFunc(list, func(o *url.URL) bool { return o.Host == u.Host }) {
			list = append(list, u)
		}
	}
	for _, v := range c.Volumes {
		for _, key := range v.Key.KMSKeys {
			add("kms", key)
		}
		if k := v.Key.Source.Kind; k.Remote != nil {
			add(k.Name, v.Key.Home())
		}
	}
	return list
}
