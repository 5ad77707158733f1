// Package badinput has only a test: thousands of mutated inputs through all of
// unlock but its kernel interfaces, in one process and in fake time.
package badinput
