// Package completion writes completion scripts for bash, zsh and fish from the model
// of a command line: commands, flags, the values that flags may have, and names of
// files where files are wanted.
package completion

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Shells that Script knows.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

// Script returns the script for a shell.
func Script(shell string, app *kong.Application) (string, bool) {
	switch shell {
	case "bash":
		return bash(app), true
	case "zsh":
		return zsh(app), true
	case "fish":
		return fish(app), true
	}
	return "", false
}

// values are those of an enumeration, but for the empty one.
func values(v *kong.Value) []string {
	var list []string
	for _, s := range strings.Split(v.Enum, ",") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// words are those that may follow a command.
func words(c *kong.Node) []string {
	var list []string
	for _, p := range c.Positional {
		list = append(list, values(p)...)
	}
	for _, f := range c.Flags {
		list = append(list, "--"+f.Name)
	}
	return list
}

// file reports whether a value is the name of a file or a device, or may be one.
func file(v *kong.Value) bool {
	name := strings.Trim(v.Tag.PlaceHolder, ",…")
	return name == "FILE" || name == "DIR" || name == "DEVICE" || name == "PLACE" || v.Tag.Type == "existingfile" || v.Tag.Type == "existingdir"
}

// files reports whether a command takes names of files.
func files(c *kong.Node) bool {
	for _, p := range c.Positional {
		if len(values(p)) == 0 && !volume(p) {
			return true
		}
	}
	return false
}

// volume reports whether a value is the name of a volume.
func volume(v *kong.Value) bool { return v.Tag.PlaceHolder == "NAME" }

// volumes is a command, for all three shells, that lists those of the configuration.
const volumes = `awk -F\" "/^ *name *=/ {print \$2}" /etc/unlock.toml 2>/dev/null`

func names(app *kong.Application) []string {
	var list []string
	for _, c := range app.Children {
		list = append(list, c.Name)
	}
	return list
}

func bash(app *kong.Application) string {
	var b strings.Builder
	fn := "_" + app.Name
	fmt.Fprintf(&b, "%s() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=\n", fn)
	fmt.Fprintf(&b, "\tCOMPREPLY=()\n\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\tmapfile -t COMPREPLY < <(compgen -W %q -- \"$cur\")\n\t\treturn\n\tfi\n", strings.Join(names(app), " "))
	b.WriteString("\tcase ${COMP_WORDS[1]}:$prev in\n")
	// Without an answer the shell completes names of files, as asked below.
	for _, c := range app.Children {
		for _, f := range c.Flags {
			switch v := values(f.Value); {
			case len(v) > 0:
				fmt.Fprintf(&b, "\t%s:--%s) words=%q ;;\n", c.Name, f.Name, strings.Join(v, " "))
			case f.Target.Kind() != reflect.Bool && file(f.Value):
				fmt.Fprintf(&b, "\t%s:--%s) return ;;\n", c.Name, f.Name)
			case f.Target.Kind() != reflect.Bool:
				fmt.Fprintf(&b, "\t%s:--%s) compopt +o default 2>/dev/null; return ;;\n", c.Name, f.Name)
			}
		}
	}
	for _, c := range app.Children {
		if files(c) {
			fmt.Fprintf(&b, "\t%s:*) case $cur in -*) words=%q ;; *) return ;; esac ;;\n", c.Name, strings.Join(words(c), " "))
			continue
		}
		fmt.Fprintf(&b, "\t%s:*) words=%q", c.Name, strings.Join(words(c), " "))
		if slices.ContainsFunc(c.Positional, volume) {
			fmt.Fprintf(&b, "\" $(%s)\"", volumes)
		}
		b.WriteString(" ;;\n")
	}
	b.WriteString("\tesac\n\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n}\n")
	fmt.Fprintf(&b, "complete -o default -F %s %s\n", fn, app.Name)
	return b.String()
}

func zsh(app *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n\n_%s() {\n\tif ((CURRENT == 2)); then\n\t\tlocal -a commands=(\n", app.Name, app.Name)
	for _, c := range app.Children {
		fmt.Fprintf(&b, "\t\t\t%s\n", single(c.Name+":"+c.Help))
	}
	b.WriteString("\t\t)\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tcase $words[2] in\n")
	for _, c := range app.Children {
		fmt.Fprintf(&b, "\t%s)\n\t\t_arguments", c.Name)
		for _, f := range c.Flags {
			spec := "--" + f.Name
			text := strings.NewReplacer("[", "(", "]", ")", ":", `\:`).Replace(f.Help)
			switch v := values(f.Value); {
			case f.Target.Kind() == reflect.Bool:
				spec += "[" + text + "]"
			case len(v) > 0:
				spec += "=[" + text + "]:value:(" + strings.Join(v, " ") + ")"
			case file(f.Value):
				spec += "=[" + text + "]:file:_files"
			default:
				spec += "=[" + text + "]:value: "
			}
			fmt.Fprintf(&b, " \\\n\t\t\t%s", single(spec))
		}
		rest := "*:file:_files"
		for _, p := range c.Positional {
			if v := values(p); len(v) > 0 {
				rest = "*:value:(" + strings.Join(v, " ") + ")"
			} else if volume(p) {
				rest = "*:volume:{compadd -- $(" + volumes + ")}"
			}
		}
		fmt.Fprintf(&b, " \\\n\t\t\t%s\n\t\t;;\n", single(rest))
	}
	fmt.Fprintf(&b, "\tesac\n}\n\n_%s \"$@\"\n", app.Name)
	return b.String()
}

func fish(app *kong.Application) string {
	var b strings.Builder
	for _, c := range app.Children {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -f -a %s -d %s\n", app.Name, c.Name, single(c.Help))
		seen := "'__fish_seen_subcommand_from " + c.Name + "'"
		for _, p := range c.Positional {
			if v := values(p); len(v) > 0 {
				fmt.Fprintf(&b, "complete -c %s -n %s -f -a %s\n", app.Name, seen, single(strings.Join(v, " ")))
			} else if volume(p) {
				fmt.Fprintf(&b, "complete -c %s -n %s -f -a %s\n", app.Name, seen, single("("+volumes+")"))
			}
		}
		for _, f := range c.Flags {
			fmt.Fprintf(&b, "complete -c %s -n %s -l %s", app.Name, seen, f.Name)
			if f.Short != 0 {
				fmt.Fprintf(&b, " -s %c", f.Short)
			}
			if v := values(f.Value); len(v) > 0 {
				fmt.Fprintf(&b, " -x -a %s", single(strings.Join(v, " ")))
			} else if f.Target.Kind() != reflect.Bool && file(f.Value) {
				b.WriteString(" -r -F")
			} else if f.Target.Kind() != reflect.Bool {
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", single(f.Help))
		}
	}
	return b.String()
}

// single quotes for all three shells.
func single(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
