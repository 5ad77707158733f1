package holders_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/cmd/unlockctl/internal/holders"
	"unlock/test/program"
)

// TestProcesses: whatever a process has of a file system, or of the device below, is
// found, and a process that has nothing of them is not.
func TestProcesses(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("loop devices and mounting take root")
	}
	dir := t.TempDir()
	image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	must := func(name string, args ...string) string {
		program.Need(t, name)
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	must("truncate", "-s", "16M", image)
	must("mke2fs", "-q", "-t", "ext4", image)
	loop := must("losetup", "--find", "--show", image)
	t.Cleanup(func() { exec.Command("losetup", "--detach", loop).Run() })
	must("mkdir", mounted)
	must("mount", loop, mounted)
	t.Cleanup(func() { unix.Unmount(mounted, unix.MNT_DETACH) })
	must("cp", must("sh", "-c", "command -v sleep"), mounted+"/sleep")
	must("touch", mounted+"/file")
	var st unix.Stat_t
	if err := unix.Stat(loop, &st); err != nil {
		t.Fatal(err)
	}
	device := holders.Device{Path: loop, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}

	for name, row := range map[string]struct {
		script          string
		want, elsewhere bool
	}{
		"nothing":           {"exec sleep 1000", false, false},
		"working directory": {"cd mnt && exec sleep 1000", true, false},
		"open file":         {"exec sleep 1000 <mnt/file", true, false},
		"program":           {"exec mnt/sleep 1000", true, false},
		"the device":        {"exec sleep 1000 <" + loop, true, false},
		"other mounts":      {"exec unshare --mount --propagation private sleep 1000", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", "echo; "+row.script)
			cmd.Dir = dir
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			comm := fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)
			for { // until it is what it is to be
				if name, err := os.ReadFile(comm); err != nil {
					t.Fatal(err)
				} else if string(name) == "sleep\n" {
					break
				}
			}
			want := fmt.Sprintf("process %d (sleep)", cmd.Process.Pid)
			found, elsewhere := holders.Processes(device, []string{mounted}), holders.Elsewhere(device)
			if slices.Contains(found, want) != row.want || slices.Contains(elsewhere, want) != row.elsewhere {
				t.Errorf("found %q, elsewhere %q; %s among them: want %v, %v", found, elsewhere, want, row.want, row.elsewhere)
			}
		})
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "", 2: "a, a", 8: "a, a, a, a, a, a, a, a", 11: "a, a, a, a, a, a, a, a and 3 more"} {
		if got := holders.List(slices.Repeat([]string{"a"}, n)); got != want {
			t.Errorf("List of %d = %q, want %q", n, got, want)
		}
	}
}
