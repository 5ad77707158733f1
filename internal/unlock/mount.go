package unlock

import (
	"fmt"
	"slices"

	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/status"
)

// Mount mounts, below newroot, the volumes that report says are mapped, and notes
// it there. A required volume that cannot be mounted is an error. Over the mount
// point of an optional one that is missing it lays an empty read-only file system,
// so that nothing is written there in the clear; warn is told why.
func Mount(c *config.Config, report *status.Boot, newroot string, warn func(error)) error {
	var errs []error
	for _, v := range c.Volumes {
		i := slices.IndexFunc(report.Volumes, func(r status.Volume) bool { return r.Name == v.Name && r.Mapping != "" })
		if v.Mount == "" || i < 0 && report.Result == status.ResultNothing {
			continue
		}
		if i >= 0 {
			err := fsys.Mount(report.Volumes[i].Mapping, newroot, v.Mount, v.Filesystem, v.MountOptions)
			if err == nil {
				report.Volumes[i].Mount = v.Mount
				continue
			}
			if err = fmt.Errorf("volume %q: %w", v.Name, err); v.Required {
				errs = append(errs, err)
				continue
			}
			warn(err)
		}
		if err := fsys.Cover(newroot, v.Mount); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", v.Name, err))
		}
	}
	return hint.All(errs...)
}
