package timeline

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sigtrail/index"
)

// verdictEvent says what became of a file's provenance object: how its attestations
// stand and whether its entries are in their logs, and in the note what does not hold.
// Until it is verified it stands where the object was fetched.
func verdictEvent(ctx context.Context, store *index.Store, f index.File, fetched time.Time) (Event, error) {
	e := Event{At: at(fetched), Clock: ClockOurs, Kind: "provenance", Text: "provenance: not verified yet", Project: f.Project, Version: f.Version, File: f.Name}
	verdicts, verified, err := store.Verdicts(ctx, f.ID)
	if err != nil || !verified {
		return e, err
	}
	var notes []string
	standing := make(map[index.AttestationState]int)
	for _, v := range verdicts {
		e.At = at(v.At)
		standing[v.State]++
		if v.Failed != "" {
			notes = append(notes, fmt.Sprintf("attestation %d of bundle %d is %s: %s (%s; trusted root %.12s)", v.Attestation+1, v.Bundle+1, v.State, v.Failed, v.Error, v.Root))
		}
	}
	parts := []string{count(standing[index.AttestationHolds], "attestation holds", "attestations hold")}
	for _, s := range []index.AttestationState{index.AttestationInvalid, index.AttestationUnknown} {
		if n := standing[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	places := make(map[index.LeafPresence]int)
	if err := store.Presence(ctx, f.ID, func(leaf index.ProvenanceLeaf, p index.LeafPresence) error {
		places[p]++
		if p == index.LeafNotInLog {
			notes = append(notes, fmt.Sprintf("entry %d is not in its log", leaf.Global))
		}
		return nil
	}); err != nil {
		return e, err
	}
	for _, p := range []struct {
		presence  index.LeafPresence
		one, more string
	}{
		{index.LeafInLog, "entry in the log", "entries in the log"},
		{index.LeafNotInLog, "entry not in the log", "entries not in the log"},
		{index.LeafUncovered, "entry at a place not read yet", "entries at places not read yet"},
	} {
		if n := places[p.presence]; n > 0 {
			parts = append(parts, count(n, p.one, p.more))
		}
	}
	e.Text, e.Note = "provenance: "+strings.Join(parts, ", "), strings.Join(notes, "; ")
	return e, nil
}

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
