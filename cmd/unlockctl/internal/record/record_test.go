package record_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/record"
	"unlock/internal/status"
	"unlock/test/program"
)

func boot() *status.Boot {
	return &status.Boot{
		Version: "v1", BootID: "b5d4d3a1-0000-4000-8000-000000000001", ConfigSum: strings.Repeat("ab", 32), Result: status.ResultDone,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Duration: status.Millis(950 * time.Millisecond), PeakRSS: 31500000,
		Instance: &status.Instance{ID: "i-0123456789abcdef0", Account: "111122223333", Region: "us-east-1", Image: "ami-0123456789abcdef0"},
		Volumes: []status.Volume{
			{Name: "secretfs", Action: "open", Devices: []string{"/dev/nvme1n1", "/dev/nvme2n1"}, Mapping: "/dev/mapper/secretfs", UUIDs: []string{"1", "2"},
				KMSKey: "arn:aws:kms:us-east-1:111122223333:key/1", Calls: []string{"s3-request", "kms-request"}},
			{Name: `quoted"\`, Action: "failed", Error: "two\nlines"},
		},
		Calls: []status.Call{{Service: "s3", Operation: "GetObject", RequestID: "s3-request", Attempts: 1}, {Service: "kms", Operation: "Decrypt", RequestID: "kms-request", Attempts: 3}},
	}
}

// TestVolumes reads what journald would.
func TestVolumes(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := record.Volumes(socket, boot()); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"MESSAGE=volume secretfs: open\n", "MESSAGE_ID=" + record.MessageID + "\n", "PRIORITY=6\n", "SYSLOG_IDENTIFIER=unlock\n", "UNLOCK_VOLUME=secretfs\n", "UNLOCK_ACTION=open\n",
			"UNLOCK_KMS_REQUEST=kms-request\n", "UNLOCK_S3_REQUEST=s3-request\n", "UNLOCK_KMS_KEY=arn:aws:kms:us-east-1:111122223333:key/1\n", "UNLOCK_LUKS_UUID=1 2\n",
			"UNLOCK_INSTANCE=i-0123456789abcdef0\n", "UNLOCK_BOOT_ID=b5d4d3a1-0000-4000-8000-000000000001\n", "UNLOCK_CONFIG_SHA256=abab"},
		{"PRIORITY=3\n", "UNLOCK_ERROR\n\x09\x00\x00\x00\x00\x00\x00\x00two\nlines\n", "UNLOCK_VOLUME=quoted\"\\\n"},
	} {
		buf := make([]byte, 64<<10)
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range want {
			if !strings.Contains("\n"+string(buf[:n]), "\n"+field) {
				t.Errorf("no %q in\n%q", field, buf[:n])
			}
		}
	}
	if err := record.Volumes(socket+"-not", boot()); err == nil || !strings.Contains(err.Error(), "writing to the journal") {
		t.Errorf("without journald: %v", err)
	}
}

// TestTextfile has promtool judge the file.
func TestTextfile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 { // the second replaces the first
		if err := record.Textfile(dir, boot()); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "unlock.prom"))
	if err != nil {
		t.Fatal(err)
	}
	program.Need(t, "promtool")
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(string(data))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	for _, want := range []string{
		"unlock_boot_duration_seconds 0.95\n", "unlock_boot_failed 0\n", "unlock_boot_started_timestamp_seconds 1767323045\n",
		`unlock_volume_unlocked{volume="secretfs",action="open"} 1` + "\n", `unlock_volume_unlocked{volume="quoted\"\\",action="failed"} 0` + "\n",
		`unlock_aws_attempts{service="kms",operation="Decrypt"} 3` + "\n",
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %q in\n%s", want, data)
		}
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestEMF(t *testing.T) {
	t.Parallel()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	now := time.UnixMilli(1767323046123)
	if err := record.EMF(l.LocalAddr().String(), boot(), now); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, _, err := l.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		AWS struct {
			Timestamp         int64
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct{ Name, Unit string }
			}
		} `json:"_aws"`
	}
	var values map[string]any
	if err := json.Unmarshal(buf[:n], &e); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(buf[:n], &values); err != nil {
		t.Fatal(err)
	}
	if e.AWS.Timestamp != now.UnixMilli() || len(e.AWS.CloudWatchMetrics) != 1 || e.AWS.CloudWatchMetrics[0].Namespace != "unlock" {
		t.Errorf("%s", buf[:n])
	}
	for _, m := range e.AWS.CloudWatchMetrics[0].Metrics {
		if _, ok := values[m.Name].(float64); !ok || !regexp.MustCompile(`^(Milliseconds|Count)$`).MatchString(m.Unit) {
			t.Errorf("metric %+v has no value in %s", m, buf[:n])
		}
	}
	for _, names := range e.AWS.CloudWatchMetrics[0].Dimensions {
		for _, name := range names {
			if s, ok := values[name].(string); !ok || s == "" {
				t.Errorf("dimension %s has no value in %s", name, buf[:n])
			}
		}
	}
	if values["Duration"] != 950.0 || values["AWSAttempts"] != 4.0 || values["VolumesUnlocked"] != 1.0 || values["InstanceId"] != "i-0123456789abcdef0" {
		t.Errorf("%s", buf[:n])
	}
}
