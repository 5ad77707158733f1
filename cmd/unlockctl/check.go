package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/manual"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/hint/plain"
)

type checkCmd struct {
	File   string `arg:"" optional:"" default:"${config}" placeholder:"FILE" help:"Configuration (${config})."`
	Schema bool   `help:"Print the JSON schema of configurations, for editors."`
	JSON   bool   `help:"Print JSON."`
}

// mistake is one of a configuration.
type mistake struct {
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Run looks at the configuration alone, wherever that is: neither at the machine nor at
// AWS. All mistakes are told; exit status 2 if there are any.
func (c *checkCmd) Run(con console) error {
	if c.Schema {
		return con.json(manual.Schema())
	}
	data, err := os.ReadFile(c.File)
	if err != nil {
		return hint.With(fmt.Errorf("reading the configuration: %w", err), "unlock.toml(5) says what belongs into it")
	}
	found := []mistake{}
	for _, e := range config.Check(c.File, data) {
		found = append(found, mistake{e.Line, e.Msg, e.Hint})
	}
	if len(found) == 0 {
		cfg, err := config.Parse(c.File, data)
		if err != nil {
			return err
		}
		found = append(found, dubious(cfg)...)
	}
	if c.JSON {
		err = con.json(found)
	} else {
		err = con.mistakes(c.File, found)
	}
	if err == nil && len(found) > 0 {
		err = errMistaken
	}
	return err
}

// errMistaken ends a command whose output has told all, with the status of a wrong
// configuration.
var errMistaken = errors.New("the configuration is wrong")

func (c console) mistakes(file string, found []mistake) error {
	if len(found) == 0 {
		_, err := fmt.Fprintf(c.out, "%s: no mistakes\n", file)
		return err
	}
	for _, m := range found {
		at := file
		if m.Line > 0 {
			at += fmt.Sprintf(":%d", m.Line)
		}
		fmt.Fprintf(c.out, "%s: %s\n", at, plain.Text(m.Message))
		if m.Hint != "" {
			fmt.Fprintf(c.out, "    hint: %s\n", plain.Text(m.Hint))
		}
	}
	return nil
}

// dubious finds what a boot takes, but what cannot be meant.
func dubious(cfg *config.Config) []mistake {
	var found []mistake
	for _, v := range cfg.Volumes {
		if name, ok := strings.CutPrefix(v.Device.Value, "/dev/sd"); ok && v.Device.Kind == config.SelectPath && len(name) > 0 {
			found = append(found, mistake{v.Line, fmt.Sprintf("volume %q: no EC2 instance has a device %s: that is the name of the attachment", v.Name, v.Device), "write ebs:" + v.Device.Value})
		}
		for _, o := range strings.Split(v.MountOptions, ",") {
			if o != "" && !mountOption(v.Filesystem, o) {
				found = append(found, mistake{v.Line, fmt.Sprintf("volume %q: %s has no mount option %q", v.Name, v.Filesystem, o), optionHint(o)})
			}
		}
	}
	return found
}

func optionHint(o string) string {
	if o == "nofail" || strings.HasPrefix(o, "x-") || o == "_netdev" || o == "auto" || o == "noauto" {
		return "that is for systemd and fstab(5); a volume that may fail has required = false"
	}
	return "see mount(8)"
}

// Options of mount(8) that Linux knows of a file system; those with values end in "=".
var (
	anyOptions = strings.Fields("defaults rw ro nosuid nodev noexec noatime relatime nodiratime lazytime sync dirsync")
	fsOptions  = map[string][]string{
		"ext4": strings.Fields(`acl noacl user_xattr nouser_xattr barrier barrier= nobarrier commit= data= discard nodiscard errors=
			journal_checksum nojournal_checksum journal_async_commit journal_ioprio= delalloc nodelalloc stripe= noload norecovery
			init_itable init_itable= noinit_itable inode_readahead_blks= max_batch_time= min_batch_time= usrquota grpquota prjquota
			quota noquota jqfmt= usrjquota= grpjquota= dax dax= auto_da_alloc noauto_da_alloc dioread_lock dioread_nolock i_version
			bsddf minixdf debug resuid= resgid= grpid nogrpid bsdgroups sysvgroups block_validity noblock_validity
			mb_optimize_scan= sb= abort`),
		"xfs": strings.Fields(`allocsize= attr2 noattr2 dax dax= discard nodiscard grpid bsdgroups nogrpid sysvgroups filestreams
			ikeep noikeep inode32 inode64 largeio nolargeio logbufs= logbsize= logdev= rtdev= noalign norecovery nouuid noquota
			uquota usrquota quota uqnoenforce qnoenforce gquota grpquota gqnoenforce pquota prjquota pqnoenforce sunit= swidth=
			swalloc wsync`),
		"btrfs": strings.Fields(`acl noacl autodefrag noautodefrag barrier nobarrier clear_cache commit= compress compress=
			compress-force compress-force= datacow nodatacow datasum nodatasum degraded device= discard discard= nodiscard
			enospc_debug noenospc_debug flushoncommit noflushoncommit fatal_errors= max_inline= metadata_ratio= norecovery
			rescan_uuid_tree rescue= skip_balance space_cache space_cache= nospace_cache ssd ssd_spread nossd nossd_spread
			subvol= subvolid= thread_pool= treelog notreelog usebackuproot user_subvol_rm_allowed`),
	}
)

func mountOption(fs, option string) bool {
	name, _, valued := strings.Cut(option, "=")
	if valued {
		name += "="
	}
	return slices.Contains(anyOptions, name) || slices.Contains(fsOptions[fs], name)
}
