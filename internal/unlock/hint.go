package unlock

import (
	"errors"
	"syscall"

	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/ec2"
	"unlock/internal/fsys"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/netup"
)

// Hint returns what the operator can do about an error, or "".
func Hint(err error) string {
	var (
		c *config.Error
		r *Refusal
		k *keys.Error
		i *ec2.Error
	)
	switch {
	case errors.As(err, &c):
		return c.Hint
	case errors.As(err, &r):
		return r.Hint
	case errors.As(err, &k):
		return k.Hint
	case errors.As(err, &i):
		return i.Hint
	case errors.Is(err, errTyped):
		return "type a recovery passphrase that was added to the volume, for instance by unlockctl enroll --recovery-key"
	case errors.Is(err, luks.ErrPassphrase):
		return "KMS gave a key, but it is not this volume's: check the key source, or add the key with unlockctl enroll; nothing was changed"
	case errors.Is(err, luks.ErrChanged), errors.Is(err, errOther):
		return "something else writes to this disk; nothing was formatted"
	case errors.Is(err, syscall.EIO):
		return "look at the kernel's messages for the disk; replace the instance if it fails"
	case errors.Is(err, dm.ErrExists):
		return "another tool has mapped the volume: remove it from crypttab or from rd.luks"
	case errors.Is(err, netup.ErrNoCard):
		return "add the driver of the network card (ena on Nitro) to the initramfs"
	case errors.Is(err, netup.ErrNoLink):
		return "check that the network interface is attached to the instance and in use (aws ec2 describe-network-interfaces)"
	case errors.Is(err, netup.ErrNoLease):
		return "check the subnet's DHCP options and that the network interface is attached"
	case errors.Is(err, fsys.ErrNoTool):
		return "rebuild the initramfs: it takes along the tools that the configuration needs"
	}
	return ""
}
