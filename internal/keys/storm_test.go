package keys_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys"
)

// limiter is a token bucket as AWS throttles by: what it refuses costs nothing.
type limiter struct {
	rate, burst float64 // requests per second, and how many at once after a pause

	mu       sync.Mutex
	tokens   float64
	last     time.Time
	requests int
}

func (l *limiter) allow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.tokens = min(l.burst, l.tokens+now.Sub(l.last).Seconds()*l.rate)
	l.last = now
	l.requests++
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// storm starts instances at random within one second and returns when each had
// its key, for those that got one.
func storm(t *testing.T, instances int, l *limiter, get func(context.Context, *cloud) error) []time.Duration {
	c := newCloud(t)
	throttled := jsonError(400, "ThrottlingException")
	c.faults["kms"] = func(int) http.HandlerFunc {
		if l.allow() {
			return nil
		}
		return throttled
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	start := time.Now()
	var (
		mu  sync.Mutex
		had []time.Duration
		wg  sync.WaitGroup
	)
	for range instances {
		wg.Go(func() {
			time.Sleep(rand.N(time.Second))
			if get(ctx, c) == nil {
				mu.Lock()
				had = append(had, time.Since(start))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(had)
	return had
}

// TestStorm boots thousands of instances at once against a KMS that takes 500
// requests a second, once with our retries and once, but in a short run, with the SDK's
// own.
func TestStorm(t *testing.T) {
	const instances, rate = 5000, 500
	imposed := time.Duration(float64(instances) / rate * float64(time.Second))
	const plain = "http://kms.us-east-1.amazonaws.com" // ten thousand TLS handshakes would tell nothing and take 15 s
	source := file(t)
	report := func(who string, had []time.Duration, l *limiter) (last time.Duration, perInstance float64) {
		if len(had) > 0 {
			last = had[len(had)-1]
		}
		perInstance = float64(l.requests) / instances
		fmt.Printf("storm: %-5s %d of %d instances have their key; the last after %.1f s (the limit alone: %.1f s); %.2f requests per instance\n",
			who, len(had), instances, last.Seconds(), imposed.Seconds(), perInstance)
		return last, perInstance
	}
	synctest.Test(t, func(t *testing.T) {
		l := &limiter{rate: rate, burst: rate / 10, last: time.Now()}
		k := config.Key{Source: source, KMSKeys: []arn.ARN{arn.MustParse(keyARN)}}
		had := storm(t, instances, l, func(ctx context.Context, c *cloud) error {
			client, err := keys.New(keys.Options{Identity: role, Dial: c.Dial, Roots: c.roots(), AWS: config.AWS{Endpoint: map[string]string{"kms": plain}}})
			if err != nil {
				return err
			}
			defer client.Close()
			s, _, err := client.Open(ctx, k)
			s.Wipe()
			return err
		})
		last, perInstance := report("ours", had, l)
		if len(had) != instances {
			t.Errorf("%d instances have their key, want %d", len(had), instances)
		}
		if last > imposed*3/2 {
			t.Errorf("the last key came after %v, want %v at most", last, imposed*3/2)
		}
		if perInstance >= 4 {
			t.Errorf("%.2f requests per instance, want fewer than 4", perInstance)
		}
	})
	if testing.Short() {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		l := &limiter{rate: rate, burst: rate / 10, last: time.Now()}
		had := storm(t, instances, l, func(ctx context.Context, c *cloud) error {
			r, _ := role(ctx)
			transport := &http.Transport{DialContext: c.Dial}
			defer transport.CloseIdleConnections()
			client := kms.New(kms.Options{
				Region: region, BaseEndpoint: aws.String(plain), HTTPClient: &http.Client{Transport: transport},
				Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return r.Credentials, nil }),
			})
			_, err := client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: []byte(encrypted), KeyId: aws.String(keyARN)})
			return err
		})
		report("SDK", had, l)
	})
}
