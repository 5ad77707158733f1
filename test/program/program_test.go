package program_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"unlock/test/program"
)

// TestWrite: programs are written and run while others are started all the time.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	errs := make([]error, 8)
	var tasks sync.WaitGroup
	for i := range errs {
		tasks.Go(func() {
			for n := range 100 {
				file := filepath.Join(dir, strconv.Itoa(i), strconv.Itoa(n))
				errs[i] = errors.Join(errs[i], program.Write(file, "#!/bin/sh\n", 0o755), exec.Command(file).Run())
			}
		})
	}
	tasks.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// TestMissing: a test that needs what is not there is skipped, but fails where all is to be there.
func TestMissing(t *testing.T) {
	for name, row := range map[string]struct {
		program, all string
		lacks, fails bool
	}{
		"there":           {program: "sh"},
		"there, all":      {program: "sh", all: "1"},
		"not there":       {program: "no-such-program", lacks: true},
		"not there, all":  {program: "no-such-program", all: "1", lacks: true, fails: true},
		"file, not there": {program: "/sbin/no-such-program", lacks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("UNLOCK_NEED_ALL", row.all)
			lacks, err := program.Lacks(row.program)
			if lacks != row.lacks || (err != nil) != row.fails {
				t.Errorf("Lacks = %v, %v", lacks, err)
			}
			if row.fails {
				return // and so would this
			}
			skipped := false
			t.Run("run", func(t *testing.T) {
				defer func() { skipped = t.Skipped() }()
				program.Run(t, exec.Command("sh", "-c", row.program+" </dev/null"))
			})
			if skipped != row.lacks {
				t.Errorf("the script was skipped: %v, want %v", skipped, row.lacks)
			}
		})
	}
}
