package audit

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"unlock/internal/hint/plain"
)

// Text writes a result for people: the calls, what is found, and what was read.
func Text(w io.Writer, r *Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = plain.Text(or(c, "-"))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if len(r.Calls) > 0 {
		row("TIME", "CALL", "OUTCOME", "WHO", "FROM", "VOLUMES", "WITH", "FOUND")
	}
	for _, c := range r.Calls {
		row(c.Time.Format(time.RFC3339), c.Service+":"+c.Operation, c.Outcome, c.who(), place(c), strings.Join(c.Volumes, " "), c.with(), strings.Join(c.Findings, " "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Calls) > 0 && len(r.Findings) > 0 {
		fmt.Fprintln(w)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, plain.Text(f.line()))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(t, "note\t%s\n", plain.Text(n.File+": "+n.Text))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Calls)+len(r.Findings)+len(r.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, line := range r.Summary() {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// Summary says in a few lines what was read, and how much was found.
func (r *Result) Summary() []string {
	c := r.Counts
	lines := []string{
		fmt.Sprintf("%s of %s", count(len(r.Findings), "finding"), count(len(r.Calls), "call")),
		fmt.Sprintf("%s of %s: %d concern it; others: %d, outside the time: %d, twice there: %d, skipped: %d",
			count(int(c.Read), "record"), count(len(r.Files), "file"), c.Ours, c.Other, c.Outside, c.Duplicate, c.Skipped),
	}
	for _, d := range r.Chains {
		line := fmt.Sprintf("digests of %s, %s to %s: %d of %d signed by CloudTrail, %d of %s as delivered", plain.Text(d.Trail),
			d.From.Format(time.RFC3339), d.To.Format(time.RFC3339), d.Signed, d.Digests, d.Valid, count(d.Files, "file"))
		if d.Unsigned != "" {
			line += "; others not verified: " + plain.Text(d.Unsigned)
		}
		lines = append(lines, line)
	}
	if len(r.Chains) == 0 {
		lines = append(lines, "no digests: whether files are missing or were changed cannot be told")
	}
	return lines
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// who is the instance, or else the principal.
func (c *Call) who() string {
	if c.Instance != "" {
		return c.Instance
	}
	return c.Principal
}

// with is what the call was about beside the volumes.
func (c *Call) with() string {
	switch {
	case c.Object != "":
		return c.Object
	case c.context != "":
		return c.context
	}
	return c.Key
}

// line is a finding in one line, without its name.
func (f *Finding) line() string {
	var parts []string
	if !f.Time.IsZero() {
		parts = append(parts, f.Time.Format(time.RFC3339))
	}
	if f.File != "" {
		parts = append(parts, f.File)
	}
	if f.Call != nil {
		parts = append(parts, f.Call.who())
	}
	return strings.Join(append(parts, f.Why), "  ")
}

// CSV writes the calls (RFC 4180), one a line below the names of the columns.
func CSV(w io.Writer, r *Result) error {
	out := csv.NewWriter(w)
	out.Write([]string{"time", "service", "operation", "outcome", "principal", "instance", "ec2_role_delivery", "access_key", "source_address", "vpc_endpoint", "region",
		"key", "object", "encryption_context", "set", "volumes", "attested", "request_id", "event_id", "findings"})
	for _, c := range r.Calls {
		out.Write([]string{c.Time.Format(time.RFC3339), c.Service, c.Operation, c.Outcome, c.Principal, c.Instance, c.Delivery, c.Session, c.Address, c.Endpoint, c.Region,
			c.Key, c.Object, c.context, c.Set, strings.Join(c.Volumes, " "), c.Attested, c.RequestID, c.EventID, strings.Join(c.Findings, " ")})
	}
	out.Flush()
	return out.Error()
}
