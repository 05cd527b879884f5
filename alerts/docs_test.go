package alerts

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// docs/rules.md and the code name the same rules, and say the same of them.
func TestRulesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/rules.md")
	check(t, err)
	_, text, _ := strings.Cut(string(b), "\n## ")
	documented := make(map[string]string)
	for _, section := range strings.Split(text, "\n## ") {
		title, body, _ := strings.Cut(section, "\n")
		if documented[title] != "" {
			t.Errorf("%q is documented twice", title)
		}
		documented[title] = strings.TrimSpace(body)
	}
	for _, r := range Rules {
		title := fmt.Sprintf("%s (%s)", r.Name, r.Severity)
		lines := strings.Split(documented[title], "\n")
		delete(documented, title)
		if len(lines) != 5 {
			t.Errorf("%q has %d lines, want five", title, len(lines))
			continue
		}
		for i, start := range []string{"- **Fires:** ", "- **Means:** " + r.Meaning + ".", "- **Benign causes:** ", "- **Next:** " + r.Next + ".", "- **Tuning:** "} {
			if !strings.HasPrefix(lines[i], start) || !strings.HasSuffix(lines[i], ".") {
				t.Errorf("%s: line %d is %q, want %q", title, i+1, lines[i], start)
			}
		}
	}
	for title := range documented {
		t.Errorf("%q is documented, and no rule", title)
	}
}
