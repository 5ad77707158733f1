// Package deploytest holds the templates of deploy/ against the policies that
// unlockctl policy prints.
package deploytest
