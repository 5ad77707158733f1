package lab

import (
	"context"
	"time"

	"unlock/test/ec2sim"
	"unlock/test/vm"
)

// Scenario is a simulated cloud, a machine with disks and a configuration, and what
// must come of booting it. In configurations and texts, $KEY stands for the ARN of a
// KMS key, $OTHER for that of another, $PASSPHRASE for the passphrase,
// $VERSION for the first version of the S3 object.
type Scenario struct {
	Name    string
	System  System        // what the machine boots; nil: Standalone, but with an image that is not compressed
	Config  string        // /etc/unlock.toml
	Mistake string        // in it, as the build and the boot report it; "": none
	Cloud   ec2sim.Config // but for its faults
	Faults  []string      // of ec2sim
	Disks   []string      // see parseDisk
	Append  string        // to the kernel command line
	Prepare Step          // changes what the lab made, before the first boot; may be nil
	Machine Change        // before each boot; may be nil
	Boots   []Boot

	Attested bool     // the machine has a NitroTPM, whose documents KMS accepts
	CLI      bool     // the ciphertext is made by the AWS CLI, without an encryption context
	Typed    bool     // the passphrase is one that people type, which gets argon2id
	Hosts    []string // that the machine may talk to besides the usual ones
	KeepRoot bool     // boots see what earlier ones wrote to the root
	Tool     bool     // there is one more disk, which is nothing but unlockctl
}

// Boot is one start of the machine. The zero value must stop before the system is
// up and leave the disks as they are.
type Boot struct {
	Name      string        // for messages; may be ""
	Config    string        // in place of the scenario's
	Faults    []string      // in place of the scenario's and those of earlier boots
	TPMFaults []string      // of nitrotpm, in place of those of earlier boots
	Typed     []vm.Typed    // at the console
	Append    string        // to the kernel command line, after the scenario's
	Deadline  time.Duration // rd.unlock.timeout; a boot that fails has more time, as the machine may be busy; 0: none
	Attach    []int         // which disks are there, in this order; nil: all
	Late      string        // the last of them is attached when the console shows this; "": from the beginning
	Script    string        // runs when the system is up: a command a line; "": it must not come up
	Secret    bool          // the script has PASSPHRASE, of which there is then a copy in the machine
	Cut       string        // power fails when the console shows this; "": it does not
	After     time.Duration // and that much time has passed
	CutAt     Mark          // or when this is on a disk; nil: never
	Want      []string      // texts on the console
	Dump      bool          // the memory goes to MemoryFile when the script has run
	Before    Step          // prepares the boot; may be nil
	Check     Judge         // may be nil
	Machine   Change        // after the scenario's; may be nil
}

type (
	// System fills in the lab's Base, Build and Up, once the cloud, keys and disks are there.
	System = Step
	// Step is a part of a scenario that takes code.
	Step = func(context.Context, *Lab) error
	// Change makes a machine another than the usual one.
	Change = func(*Lab, *vm.Machine)
	// Judge is a further judgement of a boot that ended.
	Judge = func(*Lab) error
)
