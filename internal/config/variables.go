package config

import (
	"fmt"
	"slices"
	"strings"
)

// The values of an encryption context may have variables. Parse fills ${volume} in; who
// asks KMS fills the others in, by Fill. $${ stands for the text ${ itself.
const (
	VarInstance = "instance-id"
	VarAccount  = "account"
	VarRegion   = "region"
	VarVolume   = "volume"
)

// Part is a piece of a value: text, and the variable that follows it.
type Part struct {
	Text     string
	Variable string // "" at the end
}

// Parts cuts the value of an encryption context up. A variable that there is not is an
// error; in a Config there is none.
func Parts(value string) ([]Part, error) {
	var list []Part
	text := ""
	for {
		before, rest, found := strings.Cut(value, "${")
		text += before
		if !found {
			return append(list, Part{Text: text}), nil
		}
		if strings.HasSuffix(before, "$") {
			text, value = text+"{", rest
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !slices.Contains([]string{VarInstance, VarAccount, VarRegion, VarVolume}, name) {
			return nil, fmt.Errorf("%q has a ${ that is none of ${%s}, ${%s}, ${%s} and ${%s}", value, VarInstance, VarAccount, VarRegion, VarVolume)
		}
		list = append(list, Part{text, name})
		text, value = "", after
	}
}

// Variables lists those of an encryption context, each once.
func Variables(context map[string]string) []string {
	var list []string
	for _, value := range context {
		parts, _ := Parts(value)
		for _, p := range parts {
			if p.Variable != "" && !slices.Contains(list, p.Variable) {
				list = append(list, p.Variable)
			}
		}
	}
	slices.Sort(list)
	return list
}

// Identity is what tells one instance from others.
type Identity struct {
	Instance string // i-…
	Account  string // 12 digits
	Region   string
}

// Get returns what a variable stands for.
func (i Identity) Get(variable string) string {
	return map[string]string{VarInstance: i.Instance, VarAccount: i.Account, VarRegion: i.Region}[variable]
}

// Fill returns the encryption context that KMS is told, where get says what variables
// stand for.
func Fill(context map[string]string, get func(variable string) string) map[string]string {
	return fill(context, get, func(text string) string { return text })
}

// ofVolume fills the volume's name in, and leaves the rest as it is.
func ofVolume(context map[string]string, volume string) map[string]string {
	return fill(context, func(variable string) string {
		if variable == VarVolume {
			return volume
		}
		return "${" + variable + "}"
	}, func(text string) string { return strings.ReplaceAll(text, "${", "$${") })
}

// fill puts together anew what Parts cuts up: get replaces variables, and between them
// write is what becomes of text.
func fill(context map[string]string, get, write func(string) string) map[string]string {
	if context == nil {
		return nil
	}
	filled := make(map[string]string, len(context))
	for name, value := range context {
		parts, _ := Parts(value)
		text := ""
		for _, p := range parts {
			text += write(p.Text)
			if p.Variable != "" {
				text += get(p.Variable)
			}
		}
		filled[name] = text
	}
	return filled
}
