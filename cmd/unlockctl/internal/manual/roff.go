// Package manual writes the manual pages: unlock(8), unlockctl(8), unlock.toml(5).
// What a page lists comes from where the programs have it: the command line from
// its parser's model, the settings from one table that is tested against those that
// package config reads. The format is man(7).
package manual

import (
	"fmt"
	"strings"
)

// page is a manual page being written.
type page struct{ b strings.Builder }

func newPage(name string, section int, summary string) *page {
	p := &page{}
	fmt.Fprintf(&p.b, ".TH %s %d \"\" \"unlock\"\n", strings.ToUpper(escape(name)), section)
	p.section("Name")
	fmt.Fprintf(&p.b, "%s \\- %s\n", escape(name), escape(summary))
	return p
}

func (p *page) section(title string) { fmt.Fprintf(&p.b, ".SH %s\n", strings.ToUpper(escape(title))) }

func (p *page) subsection(title string) { fmt.Fprintf(&p.b, ".SS %s\n", escape(title)) }

// para writes a paragraph. *word* is bold.
func (p *page) para(text string) { fmt.Fprintf(&p.b, ".PP\n%s\n", lines(text)) }

// item writes a term, in bold, and what there is to say of it.
func (p *page) item(term, text string) {
	fmt.Fprintf(&p.b, ".TP\n\\fB%s\\fR\n%s\n", escape(term), lines(text))
}

// code writes lines as they are.
func (p *page) code(text string) {
	p.b.WriteString(".PP\n.EX\n")
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		p.b.WriteString(guard(escape(line)))
	}
	p.b.WriteString(".EE\n")
}

func (p *page) String() string { return p.b.String() }

// lines escapes text, and makes every second asterisk end what the one before it began.
func lines(text string) string {
	var b strings.Builder
	for i, part := range strings.Split(escape(strings.Join(strings.Fields(text), " ")), "*") {
		switch {
		case i == 0:
		case i%2 == 1:
			b.WriteString(`\fB`)
		default:
			b.WriteString(`\fR`)
		}
		b.WriteString(part)
	}
	return guard(b.String())
}

// guard keeps a line from being taken for a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\&...`).Replace(text)
}
