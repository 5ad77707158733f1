// Package plot draws the steps of a boot as an SVG timeline, as systemd-analyze plot
// does for units: one bar for each step, from when it began to when it ended.
package plot

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"

	"unlock/internal/hint/plain"
	"unlock/internal/status"
)

// Sizes in pixels.
const (
	margin = 20
	row    = 22
	bar    = 16
	width  = 900 // of the whole time
	labels = 320 // room for text to the right of the last bar
	head   = 70
)

// style has light and dark.
const style = `text{font:12px sans-serif;fill:#222}.title{font-size:16px}.axis{stroke:#ccc}.network{fill:#5b9bd5}.disk{fill:#70ad47}` +
	`.key{fill:#ed9b33}.other{fill:#a5a5a5}.failed{fill:#c00000}.gap{stroke:#a5a5a5;stroke-dasharray:2 3}` +
	`@media(prefers-color-scheme:dark){svg{background:#1b1b1b}text{fill:#ddd}.axis{stroke:#444}}`

// legend says what colours mean: class and text.
var legend = [][2]string{{"network", "network"}, {"key", "AWS and keys"}, {"disk", "disks"}, {"other", "other"}, {"failed", "failed"}}

// SVG returns the drawing.
func SVG(b *status.Boot) []byte {
	steps := slices.Clone(b.Steps)
	slices.SortStableFunc(steps, func(x, y status.Step) int { return cmp.Compare(x.Start, y.Start) })
	total := time.Duration(b.Duration)
	for _, s := range steps {
		total = max(total, time.Duration(s.Start+s.Duration))
	}
	total = max(total, time.Millisecond)
	x := func(d time.Duration) float64 { return margin + float64(d)/float64(total)*width }
	gaps := b.Gaps()
	bottom := head + row*len(steps)
	if len(gaps) > 0 {
		bottom += row
	}

	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d"><style>%s</style>`+"\n", 2*margin+width+labels, bottom+2*margin, style)
	fmt.Fprintf(&out, `<text class="title" x="%d" y="24">unlock %s: %s in %.1f ms</text>`+"\n", margin, escape(b.Version), escape(b.Result), ms(b.Duration))
	when := b.Started.UTC().Format(time.RFC3339)
	if b.Kernel > 0 && b.Began >= b.Kernel {
		when += fmt.Sprintf("; the kernel's own time ended after %.1f ms, unlock was started %.1f ms later", ms(b.Kernel), ms(b.Began-b.Kernel))
	}
	fmt.Fprintf(&out, `<text x="%d" y="42">%s</text>`+"\n", margin, escape(when))
	for at := time.Duration(0); at <= total; at += grid(total) {
		fmt.Fprintf(&out, `<line class="axis" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text x="%.1f" y="%d">%g ms</text>`+"\n",
			x(at), head-4, x(at), bottom, x(at)+2, head-6, float64(at)/float64(time.Millisecond))
	}
	for i, s := range steps {
		top := head + i*row
		from, to := x(time.Duration(s.Start)), x(time.Duration(s.Start+s.Duration))
		fmt.Fprintf(&out, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"><title>%s</title></rect>`,
			class(s), from, top, max(to-from, 1), bar, escape(s.Error))
		text := fmt.Sprintf("%s (%.1f ms)", strings.TrimSpace(s.Name+" "+s.Subject), ms(s.Duration))
		if s.Error != "" {
			text += ": " + s.Error
		}
		fmt.Fprintf(&out, `<text x="%.1f" y="%d">%s</text>`+"\n", max(to, from+1)+5, top+bar-4, escape(text))
	}
	var nowhere status.Millis
	for _, g := range gaps {
		nowhere += g.Duration
		fmt.Fprintf(&out, `<path class="gap" d="M%.1f %dH%.1f"/>`, x(time.Duration(g.Start)), bottom-row/2, x(time.Duration(g.Start+g.Duration)))
	}
	if len(gaps) > 0 {
		last := gaps[len(gaps)-1]
		fmt.Fprintf(&out, `<text x="%.1f" y="%d">in no step (%.1f ms)</text>`+"\n", x(time.Duration(last.Start+last.Duration))+5, bottom-row/2+4, ms(nowhere))
	}
	for i, l := range legend {
		at := margin + 110*i
		fmt.Fprintf(&out, `<circle class="%s" cx="%d" cy="%d" r="5"/><text x="%d" y="%d">%s</text>`+"\n", l[0], at+5, bottom+margin-4, at+14, bottom+margin, l[1])
	}
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// class colours a step by what it waits for.
func class(s status.Step) string {
	if s.Error != "" {
		return "failed"
	}
	switch s.Name {
	case "network", "connections", "closing":
		return "network"
	case "disks", "attach", "compare", "format", "open", "mark", "mkfs", "fsck", "mount", "own", "cover", "bind", "grow":
		return "disk"
	case "credentials", "attestation", "key":
		return "key"
	}
	return "other"
}

// grid returns the distance of the lines: 1, 2 or 5 times a power of ten, so that
// there are no more than ten.
func grid(total time.Duration) time.Duration {
	for unit := time.Millisecond; ; unit *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			if total/(n*unit) < 10 {
				return n * unit
			}
		}
	}
}

func ms(m status.Millis) float64 { return float64(m) / float64(time.Millisecond) }

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(plain.Text(s))) // a strings.Builder takes everything
	return b.String()
}
