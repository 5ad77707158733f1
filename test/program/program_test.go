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
