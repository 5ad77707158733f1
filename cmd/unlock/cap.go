package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/config"
	"unlock/internal/ec2/attest"
	"unlock/internal/ec2/tpm"
)

// capFor is for a TPM that is busy.
const capFor = 30 * time.Second

// capPCR extends the PCR by which a key policy tells what runs after unlock from unlock
// itself, if keys are attested. A boot calls it once its last part has ended, and before
// each shell.
func capPCR() error {
	cfg, err := config.Load(config.DefaultFile, "") // whatever the command line says
	if err != nil || !cfg.Attests() {
		return err
	}
	if err := extendPCR(); err != nil {
		return fmt.Errorf("extending PCR %d, without which what runs next could have the keys: %w", attest.LastPCR, err)
	}
	kernelLog.Infof("PCR %d is extended: nothing that runs from here on gets the keys from KMS", attest.LastPCR)
	return nil
}

func extendPCR() error {
	ctx, cancel := context.WithTimeout(context.Background(), capFor)
	defer cancel()
	t, err := tpm.Open(ctx, tpm.Device)
	if err != nil {
		return err
	}
	defer t.Close()
	digests, err := t.Extend(ctx, attest.LastPCR, attest.LastEvent)
	if err != nil {
		return err
	}
	if err := logMeasurement(measurements, digests); err != nil {
		kernelLog.Warnf("%v", err) // the PCR is extended; who compares it with the log misses a record
	}
	return nil
}

// measurements is systemd's log of what was measured after the firmware, which it makes
// when it first measures something.
const measurements = "/run/log/systemd/tpm2-measure.log"

// measurement is a record of that log (TCG, Canonical Event Log, with systemd's content).
type measurement struct {
	PCR     int                 `json:"pcr"`
	Digests []measurementDigest `json:"digests"`
	Type    string              `json:"content_type"`
	Content measurementContent  `json:"content"`
}

type measurementDigest struct {
	Hash string `json:"hashAlg"`
	Sum  string `json:"digest"`
}

type measurementContent struct {
	Event     string `json:"string"`
	BootID    string `json:"bootId"`
	Timestamp int64  `json:"timestamp"` // microseconds of CLOCK_BOOTTIME
}

// logMeasurement appends what PCR 13 was extended with to the log, if there is one. Each
// record follows a record separator and ends in a newline (RFC 7464).
func logMeasurement(file string, digests []tpm.Digest) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", file, err)
	}
	m := measurement{PCR: attest.LastPCR, Type: "systemd", Content: measurementContent{attest.LastEvent, strings.ReplaceAll(bootID(), "-", ""), uptime().Microseconds()}}
	for _, d := range digests {
		m.Digests = append(m.Digests, measurementDigest{d.Bank, fmt.Sprintf("%x", d.Sum)})
	}
	data, err := json.Marshal(m)
	if err == nil {
		_, err = f.Write([]byte("\x1e" + string(data) + "\n"))
	}
	return err
}
