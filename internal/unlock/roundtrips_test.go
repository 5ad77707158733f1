package unlock_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"net/netip"
	"testing"
	"time"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/ec2/attest"
	"unlock/internal/ec2/tpm"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/netup"
	"unlock/internal/secret"
	"unlock/test/ec2sim"
	"unlock/test/nitrotpm"
	"unlock/test/program"
)

// TestRoundTrips counts the round trips from link up to key in hand: the whole
// time, with every frame to the guest delayed by one round trip time, divided by
// it. What is computed meanwhile must not add a whole one: where it seems to, the
// machine may be busy, and the round trip takes twice as long the next time.
func TestRoundTrips(t *testing.T) {
	for name, row := range map[string]struct {
		source source.Source
		budget int
		six    bool // the subnet has IPv6 alone
		attest bool // by a TPM that takes 50 ms for each command
	}{
		"s3":     {source.MustParse("s3://bucket/object"), 8, false, false},
		"ssm":    {source.MustParse("ssm:/unlock/key"), 8, false, false},
		"secret": {source.MustParse("secretsmanager:unlock/key"), 8, false, false},
		"header": {source.Header.Source(), 7, false, false},

		"s3 over IPv6":     {source.MustParse("s3://bucket/object"), 8, true, false},
		"ssm over IPv6":    {source.MustParse("ssm:/unlock/key"), 8, true, false},
		"header over IPv6": {source.Header.Source(), 7, true, false},

		"attested s3":     {source.MustParse("s3://bucket/object"), 8, false, true},
		"attested header": {source.Header.Source(), 7, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			trips := 1000.0
			for rtt := 200 * time.Millisecond; rtt < 2*time.Second && int(trips) > row.budget; rtt *= 2 {
				trips = float64(measure(t, row.source, row.six, row.attest, rtt)) / float64(rtt)
			}
			t.Logf("%s: %.2f round trips (at most %d)", name, trips, row.budget)
			if int(trips) > row.budget {
				t.Errorf("%.2f round trips from link up to key in hand, want at most %d", trips, row.budget)
			}
		})
	}
}

// measure returns how long it takes from link up to the key of source.
func measure(t *testing.T, source source.Source, six, attest bool, rtt time.Duration) time.Duration {
	c := ec2sim.Config{RTT: rtt}
	if six {
		c.Faults = []string{"ipv6-only"}
	}
	cloud, err := ec2sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	keyARN := cloud.CreateKey()
	key := config.Key{Source: source, KMSKeys: []arn.ARN{arn.MustParse(keyARN)}, Context: map[string]string{"purpose": "test"}, Attest: attest}
	ciphertext := cloud.Encrypt(keyARN, []byte("passphrase"), key.Context)
	cloud.PutObject("bucket", "object", ciphertext)
	cloud.PutSecret("unlock/key", ciphertext)
	cloud.PutParameter("/unlock/key", base64.StdEncoding.EncodeToString(ciphertext))
	bound := map[string]string{"purpose": "test", config.ContextSet: "set"}
	blob := keys.Blob{Ciphertext: cloud.Encrypt(keyARN, make([]byte, 32), bound), KeyARN: keyARN, Context: bound}
	guest, err := cloud.BareGuest()
	if err != nil {
		t.Fatal(err)
	}

	to := recipient(t, cloud, attest)
	start := time.Now()
	passphrase, err := fetch(t.Context(), cloud, guest, key, blob, six, to)
	elapsed := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	passphrase.Wipe()
	return elapsed
}

// fetch does what a boot does between link up and the key.
func fetch(ctx context.Context, cloud *ec2sim.Cloud, guest *ec2sim.Guest, key config.Key, blob keys.Blob, six bool, to *attest.Recipient) (*secret.Bytes, error) {
	if to != nil {
		go to.Document(ctx) // whose failure the call meets
	}
	up, imdsAddr := lease, netup.IMDS4
	if six {
		up, imdsAddr = lease6, netup.IMDS6
	}
	if err := up(ctx, cloud, guest); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cloud.CA())
	imds := ec2.New(ec2.Options{Dial: guest.DialContext, Endpoint: "http://" + netip.AddrPortFrom(imdsAddr, 80).String()})
	defer imds.Close()
	reached := make(chan struct{})
	var unreached error
	go func() {
		defer close(reached)
		unreached = imds.Reach(ctx, ctx)
	}()
	role := func(ctx context.Context) (aws.Role, error) {
		if <-reached; unreached != nil {
			return aws.Role{}, unreached
		}
		return imds.Role(ctx)
	}
	client, err := keys.New(keys.Options{Identity: role, Region: imds.Region, Dial: guest.DialContext, Roots: roots, AWS: config.AWS{DualStack: six}, Attest: to})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	warmed := make(chan struct{})
	go func() {
		defer close(warmed)
		client.Warm(ctx, key)
	}()
	defer func() { <-warmed }()
	if key.Source.Kind == source.Header {
		passphrase, _, err := client.OpenBlob(ctx, key, "set", blob)
		return passphrase, err
	}
	passphrase, _, err := client.Open(ctx, key)
	return passphrase, err
}

// recipient is to whom KMS encrypts; nil: nothing is attested. Its TPM is open.
func recipient(t *testing.T, cloud *ec2sim.Cloud, wanted bool) *attest.Recipient {
	if !wanted {
		return nil
	}
	program.Need(t, "swtpm")
	authority, err := nitrotpm.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	if err := cloud.TrustAttestation(authority.Root()); err != nil {
		t.Fatal(err)
	}
	module := nitrotpm.New(t.TempDir(), authority)
	if err := module.SetFaults("slow:50ms"); err != nil {
		t.Fatal(err)
	}
	conn, err := module.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	device := tpm.New(conn)
	to := attest.New(device.Request)
	t.Cleanup(func() {
		to.Close()
		device.Close()
	})
	return to
}

// lease gives the guest what DHCP has for it.
func lease(ctx context.Context, _ *ec2sim.Cloud, guest *ec2sim.Guest) error {
	conn, mac, err := guest.ListenDHCP()
	if err != nil {
		return err
	}
	l, err := netup.RequestLease(ctx, conn, mac, func(string, ...any) {})
	if err != nil {
		return err
	}
	return guest.Configure(l.Address, l.Router)
}

// lease6 does so over IPv6. The router's word, which takes one round trip, comes
// meanwhile.
func lease6(ctx context.Context, cloud *ec2sim.Cloud, guest *ec2sim.Guest) error {
	conn, mac, err := guest.ListenDHCP6()
	if err != nil {
		return err
	}
	l, err := netup.RequestLease6(ctx, conn, 1, mac, func(string, ...any) {})
	if err != nil {
		return err
	}
	guest.SetDNS(l.DNS[0])
	return guest.Configure(netip.PrefixFrom(l.Address, 64), cloud.Router6())
}
