package manual

import "strings"

// Schema is the JSON schema (draft 2020-12) of unlock.toml, out of the same list as
// its page.
func Schema() map[string]any {
	root := object("The volumes that unlock opens at boot.")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "unlock.toml"
	root["required"] = []string{"volume"}
	tables := map[string]map[string]any{"": root}
	for _, s := range Settings() {
		text := strings.ReplaceAll(s.Text, "*", "")
		table, name := "", s.Name
		if i := strings.LastIndexByte(s.Name, '.'); i >= 0 {
			table, name = s.Name[:i], s.Name[i+1:]
		}
		var v map[string]any
		switch s.Type {
		case "table", "array of tables":
			o := object(text)
			tables[s.Name] = o
			v = o
			if s.Type == "array of tables" {
				o["required"] = required[s.Name]
				v = map[string]any{"type": "array", "minItems": 1, "items": o}
			}
		case "table of strings":
			v = map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}, "description": text}
		case "string or array":
			one := map[string]any{"type": "string"}
			v = map[string]any{"anyOf": []any{one, map[string]any{"type": "array", "items": one}}, "description": text}
		case "duration":
			v = map[string]any{"type": "string", "description": text}
		default: // string, integer, boolean: as JSON calls them
			v = map[string]any{"type": s.Type, "description": text}
		}
		tables[table]["properties"].(map[string]any)[name] = v
	}
	key := tables["key"]["properties"]
	tables["volume.key"]["properties"] = key
	return root
}

// required are the settings that each of an array of tables must have.
var required = map[string][]string{"volume": {"name", "device"}, "volume.bind": {"path"}}

func object(description string) map[string]any {
	return map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}, "description": description}
}
