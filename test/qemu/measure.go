package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"unlock/test/lab"
)

// measuring boots unified kernel images and compares what their TPM measured with what
// unlockctl measure predicts: with three versions of systemd-stub, which differ in what
// the firmware measures, with systemd-boot and without, with Secure Boot off and on.
var measuring = []lab.Scenario{measured("bookworm"), measured("trixie"), measured("sid")}

func measured(suite string) lab.Scenario {
	s := lab.Scenario{Name: "attest-measure-" + suite, System: lab.Unified(lab.Standalone), Attested: true, Tool: true, Append: "rd.unlock=0",
		Config: ephemeralKey + strings.Replace(secretfs, `"blank"`, `"ephemeral"`, 1)}
	for _, uki := range []lab.UKI{{}, {Boot: true}, {Secure: true}, {Boot: true, Secure: true}} {
		uki.Suite = suite
		b := lab.Boot{Name: fmt.Sprintf("%+v", uki), Script: "show_pcrs", Check: asMeasured,
			Before: func(_ context.Context, l *lab.Lab) error { l.UKI = uki; return nil }}
		if !uki.Secure {
			b.Script, b.Want = "show_pcrs\nmeasure_this", []string{"this boot is the one predicted"}
		}
		s.Boots = append(s.Boots, b)
	}
	return s
}

const ephemeralKey = "[key]\nsource = \"ephemeral\"\n"

var shownPCR = regexp.MustCompile(`pcr (\d+) ([0-9A-Fa-f]{96})`)

// asMeasured compares the console of show_pcrs with the prediction for the disk.
func asMeasured(l *lab.Lab) error {
	want, err := predict(context.Background(), l)
	if err != nil {
		return err
	}
	var errs []error
	n := 0
	for _, line := range l.Console {
		if m := shownPCR.FindStringSubmatch(line.Text); m != nil {
			n++
			if got := strings.ToLower(m[2]); got != want.PCRs[m[1]] {
				errs = append(errs, fmt.Errorf("PCR %s is %s, predicted was %s", m[1], got, want.PCRs[m[1]]))
			}
		}
	}
	if n != len(want.PCRs) {
		errs = append(errs, fmt.Errorf("the console shows %d PCRs, predicted were %d", n, len(want.PCRs)))
	}
	l.Note("%d of %d PCRs", n-len(errs), n)
	return errors.Join(errs...)
}

// prediction is what unlockctl measure --json prints.
type prediction struct {
	PCRs map[string]string `json:"pcrs"`
}

// measurement is the file with the prediction for the disk as it is.
const measurement = "measured.json"

// predict has the tool predict the next boot, from the disk that it boots.
func predict(ctx context.Context, l *lab.Lab) (*prediction, error) {
	command := []string{filepath.Join(l.Bin, "unlockctl"), "measure", "--json", l.ESP()}
	if l.UKI.Secure {
		variables, err := lab.Variables(lab.SnakeoilVariables, "PK", "KEK", "db", "dbx")
		if err != nil {
			return nil, err
		}
		for name, data := range variables {
			file := l.File(name + ".esl")
			if err := os.WriteFile(file, data, 0o600); err != nil {
				return nil, err
			}
			command = append(command, "--"+strings.ToLower(name), file)
		}
	}
	out, err := lab.Output(ctx, nil, "", command...)
	if err != nil {
		return nil, err
	}
	p := &prediction{}
	if err := json.Unmarshal(out, p); err != nil {
		return nil, fmt.Errorf("reading the prediction: %w", err)
	}
	return p, os.WriteFile(l.File(measurement), out, 0o600)
}
