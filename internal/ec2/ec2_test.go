package ec2_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/aws"
	"unlock/internal/ec2"
)

const base = "/latest/meta-data/"

// imds is a metadata service on the loopback interface.
type imds struct {
	*httptest.Server
	answers map[string]string // by path below /latest/meta-data/; what is missing is 404
	now     func() time.Time  // its clock
	asked   func(path string) // before each answer; may be nil

	mu     sync.Mutex
	seen   []string // requests
	conns  int
	tokens int // given so far; only the last one is valid
}

func newIMDS(t *testing.T) *imds {
	t.Helper()
	s := &imds{now: time.Now, answers: map[string]string{
		"placement/region":                "eu-central-1\n",
		"iam/security-credentials/":       "demo\n",
		"iam/security-credentials/demo":   credentials(time.Now().Add(time.Hour)),
		"block-device-mapping/":           "ami\nephemeral0\nephemeral1",
		"block-device-mapping/ami":        "/dev/sda1",
		"block-device-mapping/ephemeral0": "sdb",
		"block-device-mapping/ephemeral1": "sdc",
	}}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func credentials(expires time.Time) string {
	return fmt.Sprintf(`{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"secret","Token":"session","Expiration":%q}`,
		expires.UTC().Format(time.RFC3339))
}

func (s *imds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, r.Method+" "+r.URL.Path)
	if s.asked != nil {
		s.asked(r.URL.Path)
	}
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	if r.Method == "PUT" {
		if ttl := r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"); r.URL.Path != "/latest/api/token" || ttl != "300" {
			http.Error(w, "path "+r.URL.Path+", TTL "+ttl, http.StatusBadRequest)
			return
		}
		s.tokens++
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
		fmt.Fprint(w, "token-", s.tokens)
		return
	}
	if r.Header.Get("X-Aws-Ec2-Metadata-Token") != fmt.Sprint("token-", s.tokens) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	answer, ok := s.answers[strings.TrimPrefix(r.URL.Path, base)]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	io.WriteString(w, answer)
}

// patience is a context whose deadline passes when it has been tried as often as it
// says.
type patience struct {
	context.Context
	tries int
	done  chan struct{}
}

func patient(t *testing.T, tries int) *patience {
	return &patience{t.Context(), tries, make(chan struct{})}
}

func (p *patience) tried() {
	if p.tries--; p.tries == 0 {
		close(p.done)
	}
}

func (p *patience) Done() <-chan struct{} { return p.done }

func (p *patience) Err() error {
	select {
	case <-p.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// TestRole counts what the role's credentials cost: one connection, three requests.
func TestRole(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	c := ec2.New(ec2.Options{Endpoint: s.URL})
	r, err := c.Role(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if cr := r.Credentials; r.Name != "demo" || cr.AccessKeyID != "ASIAEXAMPLE" || cr.SecretAccessKey != "secret" || cr.SessionToken != "session" || !cr.CanExpire {
		t.Errorf("Role = %+v", r)
	}
	if left := time.Until(r.Credentials.Expires); left < 58*time.Minute || left > time.Hour+time.Minute {
		t.Errorf("the credentials expire in %v, want an hour", left)
	}
	want := "PUT /latest/api/token, GET " + base + "iam/security-credentials/, GET " + base + "iam/security-credentials/demo"
	if got := strings.Join(s.seen, ", "); got != want || s.conns > 3 {
		t.Errorf("requests = %s over %d connections, want %s over 3 at most", got, s.conns, want)
	}
}

// TestShared has many ask at once: one token, one connection and its spares.
func TestShared(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	c := ec2.New(ec2.Options{Endpoint: s.URL})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if region, err := c.Region(t.Context()); err != nil || region != "eu-central-1" {
				t.Errorf("Region = %q, %v, want eu-central-1", region, err)
			}
		})
		wg.Go(func() {
			if d, err := c.BlockDevices(t.Context()); err != nil || d["ephemeral0"] != "sdb" || d["ephemeral1"] != "sdc" || len(d) != 3 {
				t.Errorf("BlockDevices = %v, %v, want three", d, err)
			}
		})
	}
	wg.Wait()
	if s.tokens != 1 || s.conns > 3 {
		t.Errorf("%d tokens over %d connections, want 1 over 3 at most", s.tokens, s.conns)
	}
}

// TestNewToken has IMDS forget its tokens, as it may when an instance resumes.
func TestNewToken(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	c := ec2.New(ec2.Options{Endpoint: s.URL})
	if _, err := c.Region(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.tokens++
	s.mu.Unlock()
	if _, err := c.Region(t.Context()); err != nil {
		t.Errorf("after the token was revoked: %v", err)
	}
}

func TestNoBlockDevices(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	delete(s.answers, "block-device-mapping/")
	if d, err := ec2.New(ec2.Options{Endpoint: s.URL}).BlockDevices(t.Context()); err != nil || d == nil || len(d) != 0 {
		t.Errorf("BlockDevices = %v, %v, want an empty map", d, err)
	}
}

// TestMalformed refuses what would become part of a path or a host name.
func TestMalformed(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	s.answers["placement/region"] = "evil.example.com/"
	s.answers["block-device-mapping/"] = "../iam"
	c := ec2.New(ec2.Options{Endpoint: s.URL})
	_, err := c.Region(t.Context())
	var failed *aws.Error
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "is not a region") || failed.Hint == "" {
		t.Errorf("Region: %v, want that it is not one, and a hint", err)
	}
	if _, err := c.BlockDevices(t.Context()); err == nil || !strings.Contains(err.Error(), "is not the name of a mapping") {
		t.Errorf("BlockDevices: %v, want that it is not a name", err)
	}
}

// TestInstance: who the instance is. What is no identity is none, however often it is
// asked for.
func TestInstance(t *testing.T) {
	t.Parallel()
	const whole = `{"instanceId":"i-0123456789abcdef0","accountId":"111122223333","region":"us-east-1","imageId":"ami-0123456789abcdef0","version":"2017-09-30"}`
	for name, row := range map[string]struct{ document, says string }{
		"whole":           {whole, ""},
		"another id":      {strings.Replace(whole, "i-0", "i-\"", 1), "malformed"},
		"no account":      {strings.Replace(whole, "111122223333", "1111", 1), "is no identity"},
		"another region":  {strings.Replace(whole, "us-east-1", "us/east", 1), "is no identity"},
		"in the middle":   {whole[:40], "malformed"},
		"of another IMDS": {"", "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newIMDS(t)
			if row.document != "" {
				s.answers["/latest/dynamic/instance-identity/document"] = row.document
			}
			c := ec2.New(ec2.Options{Endpoint: s.URL})
			want := ec2.Instance{ID: "i-0123456789abcdef0", Account: "111122223333", Region: "us-east-1", Image: "ami-0123456789abcdef0"}
			for what, ask := range map[string]func(context.Context) (ec2.Instance, error){"Instance": c.Instance, "AwaitInstance": c.AwaitInstance} {
				switch got, err := ask(t.Context()); {
				case row.says == "" && (err != nil || got != want):
					t.Errorf("%s = %+v, %v", what, got, err)
				case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says) || got.ID != ""):
					t.Errorf("%s = %+v, %v, want %q", what, got, err, row.says)
				}
			}
		})
	}
	s := newIMDS(t) // that has it the third time
	s.asked = func(path string) {
		if len(s.seen) == 4 {
			s.answers["/latest/dynamic/instance-identity/document"] = whole
		}
	}
	if i, err := ec2.New(ec2.Options{Endpoint: s.URL}).AwaitInstance(t.Context()); err != nil || i.ID != "i-0123456789abcdef0" {
		t.Errorf("AwaitInstance = %+v, %v", i, err)
	}
}

// TestClock has credentials expire by IMDS' clock, not by ours.
func TestClock(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{-48 * time.Hour, 48 * time.Hour} {
		s := newIMDS(t)
		s.now = func() time.Time { return time.Now().Add(off) }
		s.answers["iam/security-credentials/demo"] = credentials(time.Now().Add(off + time.Hour))
		r, err := ec2.New(ec2.Options{Endpoint: s.URL}).Role(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(r.Credentials.Expires); left < 58*time.Minute || left > time.Hour+time.Minute {
			t.Errorf("clocks differ by %v: the credentials expire in %v, want an hour", off, left)
		}
	}
}

// TestIPv6 turns to the IPv6 endpoint where there is no IPv4, and stays there.
func TestIPv6(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	var mu sync.Mutex
	var dialled []string
	var log []string
	c := ec2.New(ec2.Options{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dialled = append(dialled, addr)
			if addr != "[fd00:ec2::254]:80" {
				return nil, syscall.ENETUNREACH
			}
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		},
		Log: func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) },
	})
	for range 2 {
		if _, err := c.Role(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.Close() // waits for the spares
	slices.Sort(dialled)
	if got := strings.Join(slices.Compact(slices.Clone(dialled)), " "); got != "169.254.169.254:80 [fd00:ec2::254]:80" || len(dialled) > 6 {
		t.Errorf("dialled %s, want IPv4 once, then IPv6 once, with two spares each", dialled)
	}
	if len(log) != 1 || !strings.Contains(log[0], "waiting for role credentials: PUT /latest/api/token: ") || !strings.Contains(log[0], "network is unreachable") {
		t.Errorf("log = %q, want what was tried and what happened", log)
	}
}

// TestAnsweredOnce stays with an endpoint that has answered, if only with credentials
// that have expired: the hint is about those.
func TestAnsweredOnce(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	s.answers["iam/security-credentials/demo"] = credentials(time.Now().Add(-time.Hour))
	c := ec2.New(ec2.Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != "169.254.169.254:80" {
			t.Errorf("dialled %s, though IPv4 had answered", addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
	}})
	p := patient(t, 3)
	s.asked = func(path string) {
		if strings.HasSuffix(path, "/demo") {
			p.tried()
		}
	}
	_, err := c.Role(p)
	var failed *aws.Error
	if !errors.As(err, &failed) || !strings.Contains(failed.Hint, "detach and attach the instance profile") {
		t.Errorf("Role = %v, want a hint about the profile", err)
	}
}

// TestQuiet logs a reason once, however long it lasts.
func TestQuiet(t *testing.T) {
	t.Parallel()
	s := newIMDS(t)
	delete(s.answers, "iam/security-credentials/")
	lines := 0
	c := ec2.New(ec2.Options{Endpoint: s.URL, Log: func(string, ...any) { lines++ }})
	p := patient(t, 4)
	s.asked = func(path string) {
		if strings.HasSuffix(path, "/security-credentials/") {
			p.tried()
		}
	}
	_, err := c.Role(p)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "404 Not Found") {
		t.Errorf("Role: %v, want 404 until the deadline", err)
	}
	if tries := len(s.seen) - 1; tries < 2 || lines != 1 {
		t.Errorf("%d lines for %d tries, want 1 for several", lines, tries)
	}
}

// TestMark checks the mark that passes systemd-imds' prohibiting route.
func TestMark(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("setting SO_MARK needs root")
	}
	s := newIMDS(t)
	marks := make(chan int, 16)
	go func() { // looks at the open sockets of this process while the client has its connection
		for range 400 {
			for fd := 3; fd < 64; fd++ {
				if m, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK); err == nil && m != 0 {
					marks <- m
					return
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		marks <- 0
	}()
	c := ec2.New(ec2.Options{Endpoint: s.URL})
	if _, err := c.Region(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m := <-marks; m != 0x7FFF0815 {
		t.Errorf("mark = %#x, want 0x7fff0815", m)
	}
}

// TestNoFallback has a metadata service that would answer without a token: it is
// never asked so, whatever it says of tokens.
func TestNoFallback(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 405, 500} {
		var mu sync.Mutex
		gets, p := 0, patient(t, 3)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if r.Method == "PUT" {
				p.tried()
				w.WriteHeader(status)
				return
			}
			gets++
			io.WriteString(w, "us-east-1")
		}))
		region, err := ec2.New(ec2.Options{Endpoint: s.URL}).Region(p)
		s.Close()
		if err == nil || gets != 0 {
			t.Errorf("tokens are %d: Region = %q, %v after %d requests without a token, want an error and none", status, region, err, gets)
		}
		var failed *aws.Error
		if says := errors.As(err, &failed) && strings.Contains(failed.Hint, "IMDSv2"); says != (status == 404) {
			t.Errorf("tokens are %d: the hint of %v is wrong", status, err)
		}
	}
}

// TestBadToken has a metadata service give what is no token: nothing is asked with it.
func TestBadToken(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]struct{ token, lifetime string }{
		"empty":           {"", "300"},
		"two lines":       {"one\ntwo", "300"},
		"a page":          {"<html><body>Log in first</body></html>", "300"},
		"too long":        {strings.Repeat("x", 1025), "300"},
		"no lifetime":     {"token", ""},
		"lifetime of 0":   {"token", "0"},
		"lifetime a word": {"token", "long"},
	} {
		var mu sync.Mutex
		gets := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if r.Method != "PUT" {
				gets++
				return
			}
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", bad.lifetime)
			io.WriteString(w, bad.token)
		}))
		region, err := ec2.New(ec2.Options{Endpoint: s.URL}).Region(t.Context())
		s.Close()
		var failed *aws.Error
		if gets != 0 || !errors.As(err, &failed) || !strings.Contains(failed.Hint, "something other than EC2's metadata service") {
			t.Errorf("%s: Region = %q, %v after %d requests, want an error with a hint and none", name, region, err, gets)
		}
	}
}

// TestRedirect does not follow a redirect, which would give the token away.
func TestRedirect(t *testing.T) {
	t.Parallel()
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			io.WriteString(w, "token")
			return
		}
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer s.Close()
	_, err := ec2.New(ec2.Options{Endpoint: s.URL}).Region(t.Context())
	if err == nil || !strings.Contains(err.Error(), "302 Found") || asked {
		t.Errorf("Region: %v, followed: %v, want 302 and not followed", err, asked)
	}
}

// TestReach: IMDS is reached with any answer, and the role costs no further request.
func TestReach(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, row := range map[string]struct {
		endpoint string // "": an IMDS
		change   func(*imds)
		want     string // of the error of Reach; "": none
		role     string // of the error of Role, after three tries
		dial     func(context.Context, string, string) (net.Conn, error)
		patience time.Duration // 0: a minute
	}{
		"healthy":  {change: func(*imds) {}},
		"no role":  {change: func(s *imds) { delete(s.answers, "iam/security-credentials/") }, role: "404 Not Found"},
		"refused":  {endpoint: "http://127.0.0.1:1", want: "PUT /latest/api/token: dial tcp 127.0.0.1:1: connect: connection refused"},
		"silent":   {endpoint: "http://" + silent.Addr().String(), want: "context deadline exceeded", patience: 100 * time.Millisecond},
		"no route": {endpoint: "http://[100::1]", want: "PUT /latest/api/token: ", dial: func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ENETUNREACH }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newIMDS(t)
			if row.change != nil {
				row.change(s)
				row.endpoint = s.URL
			}
			c := ec2.New(ec2.Options{Endpoint: row.endpoint, Dial: row.dial})
			defer c.Close()
			ctx := patient(t, 3)
			if row.role != "" {
				s.asked = func(path string) {
					if strings.HasSuffix(path, "/security-credentials/") {
						ctx.tried()
					}
				}
			}
			patience, cancel := context.WithTimeout(t.Context(), cmp.Or(row.patience, time.Minute))
			defer cancel()
			err := c.Reach(ctx, patience)
			if got := fmt.Sprint(err); row.want == "" && err != nil || !strings.Contains(got, row.want) {
				t.Fatalf("Reach = %v, want %q", err, row.want)
			}
			if err != nil {
				return
			}
			role, err := c.Role(ctx)
			if row.role != "" {
				if err == nil || !strings.Contains(err.Error(), row.role) {
					t.Fatalf("Role = %v, want an error with %q", err, row.role)
				}
				return
			}
			if err != nil || role.Name != "demo" {
				t.Fatalf("Role = %q, %v", role.Name, err)
			}
			want := []string{"PUT /latest/api/token", "GET " + base + "iam/security-credentials/", "GET " + base + "iam/security-credentials/demo"}
			if !slices.Equal(s.seen, want) {
				t.Errorf("requests %q, want %q", s.seen, want)
			}
		})
	}
}
