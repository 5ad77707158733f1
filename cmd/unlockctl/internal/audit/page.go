package audit

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"unlock/internal/config"
	"unlock/internal/hint/plain"
)

// Rows of the page's tables, beyond which it would be too long to read.
const (
	maxFindings = 2000
	maxCalls    = 200 // of each key, beside those that are flagged
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// Page writes a result as a page of HTML that needs nothing else: findings, then each
// key with its calls as a time line and a table, what was asked, and which files were
// read. command is the command line.
func Page(q Question, r *Result, command string, now time.Time) ([]byte, error) {
	type finding struct{ Name, When, Who, Why string }
	type rule struct {
		Name, Text string
		Found      int
	}
	v := struct {
		Now, Command string
		Summary      []string
		Findings     []finding
		MoreFindings int
		Keys         []pageKey
		Rules        []rule
		Notes        []Note
		Files        []FileRead
	}{Now: now.UTC().Format(time.RFC3339), Command: command, Summary: r.Summary(), Notes: r.Notes, Files: r.Files}
	number := map[string]int{}
	var last *Call
	for _, f := range r.Findings {
		number[f.Name]++
		if len(v.Findings) == maxFindings {
			v.MoreFindings++
			continue
		}
		p := finding{Name: f.Name, Who: f.File, Why: f.Why}
		if !f.Time.IsZero() {
			p.When = f.Time.Format(time.RFC3339)
		}
		switch {
		case f.Call != nil && f.Call == last: // one call, several findings
			p.When = ""
		case f.Call != nil:
			p.Who = f.Call.who()
		}
		last = f.Call
		p.Who, p.Why = plain.Text(p.Who), plain.Text(p.Why)
		v.Findings = append(v.Findings, p)
	}
	for _, rl := range Rules {
		v.Rules = append(v.Rules, rule{rl.Name, rl.Text, number[rl.Name]})
	}
	span := spanOf(r.Calls)
	rest := slices.Clone(r.Calls)
	for i := range q.Keys {
		k := newKeyOf(&q.Keys[i])
		var calls []*Call
		rest = slices.DeleteFunc(rest, func(c *Call) bool {
			ours := k.has(c)
			if ours {
				calls = append(calls, c)
			}
			return ours
		})
		p := pageKey{Title: "Volumes " + strings.Join(k.Volumes, ", "), ARNs: k.ARNs, Context: contextText(k.Context), Ciphertext: "in the LUKS headers"}
		switch {
		case len(k.Volumes) == 0:
			p.Title = "The key"
		case len(k.Volumes) == 1:
			p.Title = "Volume " + k.Volumes[0]
		}
		if k.Bound {
			p.Context = strings.TrimPrefix(p.Context+", "+config.ContextSet+"=the set of disks", ", ")
		}
		if k.in("s3") || k.Trail != nil {
			p.Ciphertext = k.Source.String()
		}
		p.fill(calls, span)
		v.Keys = append(v.Keys, p)
	}
	if len(rest) > 0 {
		p := pageKey{Title: "Calls that belong to no volume", Context: "none of the configuration", Ciphertext: "none"}
		p.fill(rest, span)
		v.Keys = append(v.Keys, p)
	}
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, v); err != nil {
		return nil, fmt.Errorf("writing the report: %w", err)
	}
	return out.Bytes(), nil
}

// has reports whether a call is about this key: its ciphertext, or its use with its
// context.
func (k *keyOf) has(c *Call) bool {
	switch {
	case c.Service == "s3":
		return k.in("s3") && (c.Object == k.Source.Bucket+"/"+k.Source.Name || c.Object == k.Source.Bucket+"/")
	case c.Service != "kms":
		return k.in(c.Service) && c.Object == k.Source.Name
	}
	return slices.Contains(k.ARNs, c.Key) && c.keyed && k.fits(c)
}

// pageKey is a key's section of the page.
type pageKey struct {
	Title, Context, Ciphertext, Count string
	ARNs                              []string
	Timeline                          template.HTML
	Calls                             []pageCall
	More                              bool
}

type pageCall struct{ When, What, Outcome, Who, From, Volumes, With, Request, Found string }

func (p *pageKey) fill(calls []*Call, s span) {
	p.Count = count(len(calls), "call")
	p.Timeline = template.HTML(timeline(calls, s))
	plainCalls := 0
	for _, c := range calls {
		if len(c.Findings) == 0 {
			plainCalls++
		}
	}
	skip := plainCalls - maxCalls
	p.More = skip > 0
	for _, c := range calls {
		if len(c.Findings) == 0 {
			if skip--; skip >= 0 {
				continue
			}
		}
		with := c.with()
		if c.Attested != "" {
			with += ", attested by " + c.Attested
		}
		p.Calls = append(p.Calls, pageCall{c.Time.Format(time.RFC3339), c.Service + ":" + c.Operation, c.Outcome, plain.Text(c.who()), plain.Text(place(c)),
			strings.Join(c.Volumes, " "), plain.Text(with), c.RequestID, strings.Join(c.Findings, " ")})
	}
}
