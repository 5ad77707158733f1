package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Timeline draws the steps as bars, one line each, in the order in which they
// began: name and subject, milliseconds from the start, duration; what failed has its
// reason below. Time that belongs to no step is drawn last. width is that of the
// bars, in characters.
func (b *Boot) Timeline(width int) string {
	steps := slices.Clone(b.Steps)
	slices.SortStableFunc(steps, func(x, y Step) int { return cmp.Compare(x.Start, y.Start) })
	total := max(b.Duration, 1)
	var out strings.Builder
	if b.Kernel > 0 && b.Began >= b.Kernel {
		fmt.Fprintf(&out, "%s %.1f ms, then %.1f ms until unlock was started\n", label("kernel"), ms(b.Kernel), ms(b.Began-b.Kernel))
	}
	at := func(m Millis) int { return int(int64(m) * int64(width) / int64(total)) }
	for _, s := range steps {
		from, length := at(s.Start), max(1, at(s.Duration))
		bar := strings.Repeat(" ", min(from, width-1)) + strings.Repeat("█", min(length, width-min(from, width-1)))
		fmt.Fprintf(&out, "%s %s%s %7.1f +%.1f ms", label(s.Name+" "+s.Subject), bar, strings.Repeat(" ", width-len([]rune(bar))), ms(s.Start), ms(s.Duration))
		if s.Error != "" {
			fmt.Fprintf(&out, " FAILED\n    %s", s.Error)
		}
		out.WriteByte('\n')
	}
	if gaps := b.Gaps(); len(gaps) > 0 {
		bar := []rune(strings.Repeat(" ", width))
		var sum Millis
		for _, g := range gaps {
			sum += g.Duration
			for i := min(at(g.Start), width-1); i < min(max(at(g.Start+g.Duration), at(g.Start)+1), width); i++ {
				bar[i] = '░'
			}
		}
		fmt.Fprintf(&out, "%s %s         +%.1f ms\n", label("in no step"), string(bar), ms(sum))
	}
	fmt.Fprintf(&out, "%-34s %s %7.1f ms\n", "total", strings.Repeat("▔", width), ms(b.Duration))
	return out.String()
}

// label is the text before a bar, of 34 characters.
func label(text string) string {
	r := []rune(strings.TrimSpace(text))
	if len(r) > 34 {
		r = append(r[:33], '…')
	}
	return string(r) + strings.Repeat(" ", 34-len(r))
}

// Gaps returns the times that belong to no step, those of a hundredth of the boot or
// more: what was waited for then is not known.
func (b *Boot) Gaps() []Step {
	return slices.DeleteFunc(b.gaps(), func(g Step) bool { return g.Duration < b.Duration/100 })
}

// Named is which part of the boot's time belongs to steps: 1 is all of it.
func (b *Boot) Named() float64 {
	total := max(b.Duration, 1)
	named := total
	for _, g := range b.gaps() {
		named -= g.Duration
	}
	return float64(named) / float64(total)
}

func (b *Boot) gaps() []Step {
	steps := slices.Clone(b.Steps)
	slices.SortFunc(steps, func(x, y Step) int { return cmp.Compare(x.Start, y.Start) })
	var gaps []Step
	end := Millis(0)
	until := func(start Millis) {
		if start > end {
			gaps = append(gaps, Step{Name: "in no step", Start: end, Duration: start - end})
		}
	}
	for _, s := range steps {
		until(s.Start)
		end = max(end, s.Start+s.Duration)
	}
	until(b.Duration)
	return gaps
}

func ms(m Millis) float64 { return float64(m) / float64(time.Millisecond) }
