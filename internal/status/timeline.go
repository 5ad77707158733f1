package status

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Timeline draws the steps as bars, one line each, in the order in which they
// began: name and subject, milliseconds from the start, duration. width is that
// of the bars, in characters.
func (b *Boot) Timeline(width int) string {
	steps := slices.Clone(b.Steps)
	slices.SortStableFunc(steps, func(x, y Step) int { return int(x.Start - y.Start) })
	total := max(b.Duration, 1)
	var out strings.Builder
	for _, s := range steps {
		label := strings.TrimSpace(s.Name + " " + s.Subject)
		if r := []rune(label); len(r) > 34 {
			label = string(r[:33]) + "…"
		}
		from := int(int64(s.Start) * int64(width) / int64(total))
		length := max(1, int(int64(s.Duration)*int64(width)/int64(total)))
		bar := strings.Repeat(" ", min(from, width-1)) + strings.Repeat("█", min(length, width-min(from, width-1)))
		fmt.Fprintf(&out, "%-34s %s%s %7.1f +%.1f ms\n", label, bar, strings.Repeat(" ", width-len([]rune(bar))), ms(s.Start), ms(s.Duration))
	}
	fmt.Fprintf(&out, "%-34s %s %7.1f ms\n", "total", strings.Repeat("▔", width), ms(b.Duration))
	return out.String()
}

func ms(m Millis) float64 { return float64(m) / float64(time.Millisecond) }
