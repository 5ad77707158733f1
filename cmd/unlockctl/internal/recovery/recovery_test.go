package recovery_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/recovery"
	"unlock/internal/secret"
)

func TestNew(t *testing.T) {
	form := regexp.MustCompile(`^([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}$`)
	seen := map[string]bool{}
	for range 20 {
		k := recovery.New()
		text := string(k.Bytes())
		if !form.MatchString(text) || seen[text] {
			t.Errorf("New = %q", text)
		}
		seen[text] = true
		again, err := recovery.Parse(k)
		if err != nil || string(again.Bytes()) != text {
			t.Errorf("Parse(%q) = %q, %v", text, again.Bytes(), err)
		}
	}
}

func TestParse(t *testing.T) {
	const good = "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv"
	for name, row := range map[string]struct {
		typed string
		err   error
		text  string
	}{
		"as printed":     {good, nil, ""},
		"without dashes": {strings.ReplaceAll(good, "-", ""), nil, ""},
		"capitals":       {strings.ToUpper(good) + "\n", nil, ""},
		"blanks":         {strings.ReplaceAll(good, "-", " "), nil, ""},
		"one letter":     {strings.Replace(good, "h", "a", 1), recovery.ErrMistyped, "character 7"},
		"one missing":    {good[1:], recovery.ErrMistyped, "63 letters"},
		"one too many":   {good + "c", recovery.ErrMistyped, "65 letters"},
		"a passphrase":   {"correct horse battery staple", recovery.ErrNoKey, ""},
		"nothing":        {"", recovery.ErrNoKey, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := recovery.Parse(secret.Take([]byte(row.typed)))
			if !errors.Is(err, row.err) || err != nil && !strings.Contains(err.Error(), row.text) {
				t.Fatalf("Parse = %v, want %v %q", err, row.err, row.text)
			}
			if err == nil && string(k.Bytes()) != good {
				t.Errorf("Parse = %q, want %q", k.Bytes(), good)
			}
		})
	}
}
