package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// The part of CycloneDX 1.6 (ECMA-424) that we write.
type bom struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

func writeSBOM(w io.Writer, version string, files []string) error {
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
	}
	programs, err := readPrograms(files)
	if err != nil {
		return err
	}
	whole := component{Type: "application", Ref: "package", Name: "unlock", Version: version}
	b := bom{Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{Timestamp: time.Unix(epoch, 0).UTC().Format(time.RFC3339), Component: whole}}
	parts := dependency{Ref: whole.Ref}
	for _, p := range programs {
		c := component{Type: "application", Ref: "program/" + p.name, Name: p.name, Version: version, Hashes: []hash{{"SHA-256", p.sha256}}}
		b.Components = append(b.Components, c)
		parts.DependsOn = append(parts.DependsOn, c.Ref)
	}
	b.Dependencies = append(b.Dependencies, parts)
	for _, p := range programs {
		d := dependency{Ref: "program/" + p.name, DependsOn: []string{library("std", p.goVersion).Ref}}
		for _, m := range p.modules {
			d.DependsOn = append(d.DependsOn, library(m.path, m.version).Ref)
		}
		b.Dependencies = append(b.Dependencies, d)
	}
	b.Components = append(b.Components, library("std", programs[0].goVersion))
	for _, m := range allModules(programs) {
		c := library(m.path, m.version)
		c.Properties = []property{{"go.sum", m.sum}} // a hash of the module's tree, not of a file
		b.Components = append(b.Components, c)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(b)
}

// library is a module. PURLs are as in the package-url specification's type golang.
func library(path, version string) component {
	purl := fmt.Sprintf("pkg:golang/%s@%s", path, version)
	return component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
}
