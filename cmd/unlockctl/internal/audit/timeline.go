package audit

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"unlock/internal/hint/plain"
)

// Sizes in pixels of a time line.
const (
	lineLabels = 190 // for the operations, at the left
	lineWidth  = 900 // of the time
	lineRow    = 24
	lineHead   = 26
)

// span is the time that a time line shows.
type span struct{ from, to time.Time }

func spanOf(calls []*Call) span {
	if len(calls) == 0 {
		return span{}
	}
	return span{calls[0].Time, calls[len(calls)-1].Time}
}

// x is the place of a point in time.
func (s span) x(t time.Time) int {
	whole := s.to.Sub(s.from)
	if whole <= 0 {
		return lineLabels + lineWidth/2
	}
	return lineLabels + int(float64(t.Sub(s.from))/float64(whole)*lineWidth)
}

// timeline draws calls as SVG: a row for each operation, a dot for calls at about the
// same time, a triangle if one of them is flagged.
func timeline(calls []*Call, s span) string {
	if len(calls) == 0 {
		return ""
	}
	type mark struct {
		x, n    int
		flagged []string // findings
		first   *Call
	}
	rows := map[string][]*mark{}
	var names []string
	for _, c := range calls {
		name := c.Service + ":" + c.Operation
		if rows[name] == nil {
			names = append(names, name)
		}
		x := s.x(c.Time) / 5 * 5
		var m *mark
		if list := rows[name]; len(list) > 0 && list[len(list)-1].x == x {
			m = list[len(list)-1]
		} else {
			m = &mark{x: x, first: c}
			rows[name] = append(list, m)
		}
		m.n++
		for _, f := range c.Findings {
			if !slices.Contains(m.flagged, f) {
				m.flagged = append(m.flagged, f)
			}
		}
	}
	slices.Sort(names)
	height := lineHead + lineRow*len(names) + 6
	var b strings.Builder
	fmt.Fprintf(&b, `<div class="wide"><svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="Calls in the course of time">`+"\n",
		lineLabels+lineWidth+70, height, lineLabels+lineWidth+70, height)
	const ticks = 5
	for i := range ticks {
		t := s.from.Add(s.to.Sub(s.from) * time.Duration(i) / (ticks - 1))
		x := s.x(t)
		if s.from.Equal(s.to) && i > 0 {
			break
		}
		fmt.Fprintf(&b, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/><text class="faint" x="%d" y="14" text-anchor="middle">%s</text>`+"\n",
			x, lineHead-6, x, height, x, t.UTC().Format("2006-01-02 15:04"))
	}
	for i, name := range names {
		y := lineHead + lineRow*i + lineRow/2
		fmt.Fprintf(&b, `<text x="0" y="%d">%s</text>`+"\n", y+4, html.EscapeString(name))
		// What is flagged lies above the others.
		slices.SortStableFunc(rows[name], func(a, b *mark) int { return cmp.Compare(len(a.flagged), len(b.flagged)) })
		for _, m := range rows[name] {
			title := fmt.Sprintf("%s, %s", m.first.Time.Format(time.RFC3339), m.first.who())
			if m.n > 1 {
				title += fmt.Sprintf(" and %d more", m.n-1)
			}
			if len(m.flagged) > 0 {
				fmt.Fprintf(&b, `<path class="flagged" d="M%d %dl7 13h-14z"><title>%s</title></path>`+"\n", m.x, y-8, html.EscapeString(plain.Text(title)+": "+strings.Join(m.flagged, ", ")))
				continue
			}
			fmt.Fprintf(&b, `<circle class="ok" cx="%d" cy="%d" r="%d"><title>%s</title></circle>`+"\n", m.x, y, min(3+m.n/10, 7), html.EscapeString(plain.Text(title)))
		}
	}
	b.WriteString("</svg></div>")
	return b.String()
}
