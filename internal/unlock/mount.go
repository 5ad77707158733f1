package unlock

import (
	"errors"
	"fmt"
	"slices"

	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/status"
)

// Mount mounts, below newroot, the volumes that report says are mapped, and notes
// it there. A required volume that cannot be mounted is an error; of others warn is
// told.
func Mount(c *config.Config, report *status.Boot, newroot string, warn func(error)) error {
	var errs []error
	for _, v := range c.Volumes {
		i := slices.IndexFunc(report.Volumes, func(r status.Volume) bool { return r.Name == v.Name && r.Mapping != "" })
		if v.Mount == "" || i < 0 {
			continue
		}
		err := fsys.Mount(report.Volumes[i].Mapping, newroot, v.Mount, v.Filesystem, v.MountOptions)
		switch {
		case err == nil:
			report.Volumes[i].Mount = v.Mount
		case v.Required:
			errs = append(errs, fmt.Errorf("volume %q: %w", v.Name, err))
		default:
			warn(fmt.Errorf("volume %q: %w", v.Name, err))
		}
	}
	return errors.Join(errs...)
}
