package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CacheDir is where Kernel and RealRoot keep what they fetched: below
// $XDG_CACHE_HOME, outside any source tree. Deleting it makes them fetch anew.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache: %w", err)
	}
	dir := filepath.Join(base, "unlock-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	return dir, nil
}

// cached returns the path of name in the cache. If it is not there, make is
// called with an empty directory and returns the path below it that becomes
// name; it appears there whole or not at all.
func cached(name string, make func(dir string) (string, error)) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	dir, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return "", fmt.Errorf("filling the cache: %w", err)
	}
	defer os.RemoveAll(dir)
	made, err := make(dir)
	if err != nil {
		return "", err
	}
	if err := os.Rename(made, final); err != nil {
		if _, there := os.Stat(final); there == nil {
			return final, nil // somebody else was quicker
		}
		return "", fmt.Errorf("filling the cache: %w", err)
	}
	return final, nil
}

// run runs a program in dir and returns what it printed; its standard error
// becomes part of the error.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(lastLines(stderr.String(), 5)))
	}
	return out.String(), nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
