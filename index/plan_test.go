package index

import (
	"strings"
	"testing"
)

// What is asked round after round must not grow with all that there ever was.
func TestPlansOfEachRound(t *testing.T) {
	s := openTest(t, Options{})
	for name, q := range map[string]struct {
		query string
		args  int
	}{
		"due look-ups": {dueLookups, 3},
	} {
		t.Run(name, func(t *testing.T) {
			ok(t, s.each(t.Context(), `EXPLAIN QUERY PLAN `+q.query, make([]any, q.args), func(scan scan) error {
				var id, parent, unused int
				var step string
				err := scan(&id, &parent, &unused, &step)
				reads := strings.HasPrefix(step, "SCAN f ") || strings.HasPrefix(step, "SCAN files") && !strings.Contains(step, "files_unjudged")
				sorts := strings.Contains(step, "TEMP B-TREE") && strings.Contains(step, "LAST TERM")
				if reads || sorts {
					t.Errorf("%s", step)
				}
				return err
			}))
		})
	}
}
