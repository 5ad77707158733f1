// Package record passes on what a boot left to those who collect such things: lines of
// the journal, a file for Prometheus' node_exporter, metrics for CloudWatch's agent.
// It says nothing that is not in the status file.
package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"unlock/internal/status"
)

// MessageID is the MESSAGE_ID of the journal's lines: journalctl MESSAGE_ID=… finds them
// (sd-journal's catalogue of ids is anybody's; this one was drawn at random).
const MessageID = "9a2f0c6d5b1e4f7788d4c3b2a1907e65"

// Journal is the socket of journald.
const Journal = "/run/systemd/journal/socket"

// Volumes sends one line for each volume to the journal (systemd's "Native Journal
// Protocol": a datagram for each, of fields).
func Volumes(socket string, b *status.Boot) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("writing to the journal: %w", err)
	}
	defer conn.Close()
	for i := range b.Volumes {
		if _, err := conn.Write(encode(line(b, &b.Volumes[i]))); err != nil {
			return fmt.Errorf("writing to the journal: %w", err)
		}
	}
	return nil
}

// line returns the fields for a volume. Their names stay as they are.
func line(b *status.Boot, v *status.Volume) map[string]string {
	text, priority := fmt.Sprintf("volume %s: %s", v.Name, v.Action), "6"
	if v.Error != "" {
		text, priority = text+": "+v.Error, "3"
	}
	f := map[string]string{
		"MESSAGE": text, "MESSAGE_ID": MessageID, "PRIORITY": priority, "SYSLOG_IDENTIFIER": "unlock",
		"UNLOCK_VOLUME": v.Name, "UNLOCK_ACTION": v.Action, "UNLOCK_RESULT": b.Result, "UNLOCK_ERROR": v.Error,
		"UNLOCK_LUKS_UUID": strings.Join(v.UUIDs, " "), "UNLOCK_DEVICES": strings.Join(v.Devices, " "),
		"UNLOCK_KMS_KEY": v.KMSKey, "UNLOCK_BOOT_ID": b.BootID, "UNLOCK_CONFIG_SHA256": b.ConfigSum, "UNLOCK_VERSION": b.Version,
	}
	for _, c := range b.Calls {
		if slices.Contains(v.Calls, c.RequestID) {
			name := "UNLOCK_" + strings.ToUpper(c.Service) + "_REQUEST"
			f[name] = strings.TrimSpace(f[name] + " " + c.RequestID)
		}
	}
	if i := b.Instance; i != nil {
		f["UNLOCK_INSTANCE"], f["UNLOCK_ACCOUNT"], f["UNLOCK_REGION"], f["UNLOCK_IMAGE"] = i.ID, i.Account, i.Region, i.Image
	}
	maps.DeleteFunc(f, func(_, value string) bool { return value == "" })
	return f
}

// encode writes fields, those of several lines with their length.
func encode(fields map[string]string) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if !strings.Contains(value, "\n") {
			fmt.Fprintf(&b, "%s=%s\n", name, value)
			continue
		}
		fmt.Fprintf(&b, "%s\n%s%s\n", name, binary.LittleEndian.AppendUint64(nil, uint64(len(value))), value)
	}
	return b.Bytes()
}

// Textfile writes metrics to DIR/unlock.prom, for node_exporter's textfile collector,
// which may read at any time (Prometheus' text format).
func Textfile(dir string, b *status.Boot) error {
	f, err := os.CreateTemp(dir, ".unlock-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(metrics(b))
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, "unlock.prom"))
}

func metrics(b *status.Boot) []byte {
	var out bytes.Buffer
	gauge := func(name, help string) { fmt.Fprintf(&out, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name) }
	gauge("unlock_boot_started_timestamp_seconds", "When the boot asked for its volumes.")
	fmt.Fprintf(&out, "unlock_boot_started_timestamp_seconds %d\n", b.Started.Unix())
	gauge("unlock_boot_duration_seconds", "How long it took until they were there.")
	fmt.Fprintf(&out, "unlock_boot_duration_seconds %g\n", time.Duration(b.Duration).Seconds())
	gauge("unlock_boot_failed", "1 if a required volume stayed locked.")
	fmt.Fprintf(&out, "unlock_boot_failed %d\n", bit(b.Result == status.ResultFailed))
	gauge("unlock_boot_peak_rss_bytes", "Largest resident memory of unlock, worker and parent.")
	fmt.Fprintf(&out, "unlock_boot_peak_rss_bytes %d\n", b.PeakRSS)
	if len(b.Volumes) > 0 {
		gauge("unlock_volume_unlocked", "1 if the boot opened or formatted the volume.")
	}
	for _, v := range b.Volumes {
		fmt.Fprintf(&out, "unlock_volume_unlocked{volume=%s,action=%s} %d\n", label(v.Name), label(v.Action), bit(v.Mapping != ""))
	}
	attempts := map[string]int{}
	for _, c := range b.Calls {
		attempts[fmt.Sprintf("{service=%s,operation=%s}", label(c.Service), label(c.Operation))] += c.Attempts
	}
	if len(attempts) > 0 {
		gauge("unlock_aws_attempts", "Requests that the boot made of AWS.")
	}
	for _, name := range slices.Sorted(maps.Keys(attempts)) {
		fmt.Fprintf(&out, "unlock_aws_attempts%s %d\n", name, attempts[name])
	}
	return out.Bytes()
}

// label writes a label's value.
func label(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// EMF sends metrics to CloudWatch's agent, which listens for its embedded metric format
// at an address, mostly udp 127.0.0.1:25888 (Amazon CloudWatch User Guide, "Embedded
// metric format specification").
func EMF(addr string, b *status.Boot, now time.Time) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return fmt.Errorf("sending metrics: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write(embedded(b, now)); err != nil {
		return fmt.Errorf("sending metrics: %w", err)
	}
	return nil
}

func embedded(b *status.Boot, now time.Time) []byte {
	unlocked, attempts := 0, 0
	for _, v := range b.Volumes {
		unlocked += bit(v.Mapping != "")
	}
	for _, c := range b.Calls {
		attempts += c.Attempts
	}
	type metric struct{ Name, Unit string }
	event := map[string]any{
		"_aws": map[string]any{
			"Timestamp": now.UnixMilli(),
			"CloudWatchMetrics": []any{map[string]any{
				"Namespace": "unlock", "Dimensions": [][]string{{}, {"Image"}},
				"Metrics": []metric{{"Duration", "Milliseconds"}, {"Failed", "Count"}, {"VolumesUnlocked", "Count"}, {"AWSAttempts", "Count"}},
			}},
		},
		"Duration": float64(b.Duration) / float64(time.Millisecond), "Failed": bit(b.Result == status.ResultFailed),
		"VolumesUnlocked": unlocked, "AWSAttempts": attempts,
		"Image": "unknown", "BootID": b.BootID, "ConfigSHA256": b.ConfigSum, "Version": b.Version,
	}
	if i := b.Instance; i != nil {
		event["Image"], event["InstanceId"] = i.Image, i.ID
	}
	data, err := json.Marshal(event)
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(data, '\n')
}
