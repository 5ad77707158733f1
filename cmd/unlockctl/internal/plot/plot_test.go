package plot_test

import (
	"encoding/xml"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/plot"
	"unlock/internal/status"
)

func TestSVG(t *testing.T) {
	at := func(ms int) status.Millis { return status.Millis(time.Duration(ms) * time.Millisecond) }
	b := &status.Boot{Version: "1", Result: "done", Duration: at(100), Steps: []status.Step{
		{Name: "key", Subject: `<"header">`, Start: at(50), Duration: at(50), Error: "denied & refused"},
		{Name: "disks", Start: at(0), Duration: at(10)},
	}}
	svg := string(plot.SVG(b))
	type bar struct{ class, x, width string }
	var bars []bar
	var texts []string
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		if s, ok := token.(xml.StartElement); ok && s.Name.Local == "rect" {
			a := map[string]string{}
			for _, x := range s.Attr {
				a[x.Name.Local] = x.Value
			}
			bars = append(bars, bar{a["class"], a["x"], a["width"]})
		}
		if c, ok := token.(xml.CharData); ok {
			texts = append(texts, string(c))
		}
	}
	want := []bar{{"disk", "20.0", "90.0"}, {"failed", "470.0", "450.0"}}
	for i := range want {
		if len(bars) != len(want) || bars[i] != want[i] {
			t.Errorf("bars %v, want %v", bars, want)
		}
	}
	for _, text := range []string{`key <"header"> (50.0 ms)`, "denied & refused", "disks (10.0 ms)", "(50.0 ms): denied & refused", "in no step (40.0 ms)", "AWS and keys"} {
		if !strings.Contains(strings.Join(texts, "\n"), text) {
			t.Errorf("no text %s", strconv.Quote(text))
		}
	}
}

// TestKernel: where it is known, the drawing says when the kernel's own time ended.
func TestKernel(t *testing.T) {
	t.Parallel()
	at := func(ms int) status.Millis { return status.Millis(time.Duration(ms) * time.Millisecond) }
	b := &status.Boot{Duration: at(100), Kernel: at(4200), Began: at(9000)}
	const want = "the kernel&#39;s own time ended after 4200.0 ms, unlock was started 4800.0 ms later"
	if svg := string(plot.SVG(b)); !strings.Contains(svg, want) {
		t.Errorf("SVG = %s\nwant %q in it", svg, want)
	}
	b.Kernel = 0
	if svg := string(plot.SVG(b)); strings.Contains(svg, "kernel") {
		t.Errorf("SVG = %s\nwithout the kernel", svg)
	}
}

func TestEmpty(t *testing.T) {
	if svg := string(plot.SVG(&status.Boot{})); !strings.HasSuffix(svg, "</svg>\n") {
		t.Errorf("SVG = %q", svg)
	}
}
