package distro

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
)

// Systems returns the directories of all scenarios' systems, without unlock:
// root.ext4 and vmlinuz each. What is not in the cache is made.
func Systems(ctx context.Context) ([]string, error) {
	var dirs []string
	for _, s := range Scenarios {
		made, err := system{}.get(ctx, s.suite, s.packages)
		if err != nil {
			return nil, fmt.Errorf("making %s with %s: %w", s.suite, s.packages, err)
		}
		if dir := filepath.Dir(made.root); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}
