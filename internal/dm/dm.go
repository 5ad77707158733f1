// Package dm drives the kernel's device-mapper by its ioctl interface
// (linux/dm-ioctl.h): crypt with the key in the kernel keyring, striped, linear.
package dm
