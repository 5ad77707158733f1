package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProxy(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		proxy string
		good  bool
	}{
		"address":      {"http://10.0.0.8:3128", true},
		"name":         {"http://proxy.example.com:8080", true},
		"IPv6":         {"http://[2001:db8::8]:3128", true},
		"password":     {"http://user:hunter2@10.0.0.8:3128", false},
		"TLS":          {"https://10.0.0.8:3128", false},
		"without port": {"http://10.0.0.8", false},
		"with path":    {"http://10.0.0.8:3128/", false},
		"not a URL":    {"10.0.0.8:3128", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy, good := row.proxy, row.good
			file := filepath.Join(t.TempDir(), "unlock.toml")
			text := "[key]\nsource = \"ephemeral\"\n[aws]\nproxy = \"" + proxy + "\"\n[[volume]]\nname = \"a\"\ndevice = \"instance-store\"\nformat = \"ephemeral\"\n"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Load(file, "")
			switch {
			case good && err != nil:
				t.Fatal(err)
			case good && c.AWS.Proxy != proxy:
				t.Errorf("AWS.Proxy = %q", c.AWS.Proxy)
			case !good && (err == nil || !strings.Contains(err.Error(), "unlock.toml:4: proxy is not of the form http://HOST:PORT")):
				t.Errorf("Load = %v, want a refusal of the proxy on line 4", err)
			case !good && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("the message shows a password: %v", err)
			}
		})
	}
}
