package config_test

import (
	"maps"
	"slices"
	"testing"

	"unlock/internal/config"
)

// TestVariables: what a value in the encryption context becomes, of the volume "scratch"
// on an instance.
func TestVariables(t *testing.T) {
	t.Parallel()
	who := config.Identity{Instance: "i-0123456789abcdef0", Account: "111122223333", Region: "us-east-1"}
	for name, row := range map[string]struct {
		value, want string
		variables   []string // that Parse leaves
	}{
		"none":           {"scratch", "scratch", nil},
		"instance":       {"${instance-id}", "i-0123456789abcdef0", []string{"instance-id"}},
		"all":            {"${region}/${account}/${instance-id}/${volume}", "us-east-1/111122223333/i-0123456789abcdef0/scratch", []string{"account", "instance-id", "region"}},
		"the volume":     {"of ${volume}", "of scratch", nil},
		"twice":          {"${region}${region}", "us-east-1us-east-1", []string{"region"}},
		"a dollar":       {"5$ {x} $x $$ $", "5$ {x} $x $$ $", nil},
		"escaped":        {"$${hostname}", "${hostname}", nil},
		"escaped, known": {"$${volume} ${volume}", "${volume} scratch", nil},
		"a closing one":  {"}${volume}}", "}scratch}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := "[key]\nsource = \"header\"\nkms_key = \"" + arn + "\"\ncontext = { x = '" + row.value + "' }\n" +
				"[[volume]]\nname = \"data\"\ndevice = \"/dev/vdb\"\n[[volume]]\nname = \"scratch\"\ndevice = \"instance-store\"\n"
			c, err := config.Parse("unlock.toml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			context := c.Volumes[1].Key.Context
			if got := config.Variables(context); !slices.Equal(got, row.variables) {
				t.Errorf("Variables = %q, want %q", got, row.variables)
			}
			if got := config.Fill(context, who.Get); !maps.Equal(got, map[string]string{"x": row.want}) {
				t.Errorf("Fill = %q, want %q", got["x"], row.want)
			}
		})
	}
}
