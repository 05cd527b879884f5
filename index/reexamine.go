package index

import (
	"context"
	"database/sql"
	"time"
)

// Reexamine checks again, after the trusted root has changed, the certificates that
// did not lead to it: a new authority signs before everybody has heard of it. An
// entry that holds now is judged anew. What held before goes on holding: it was
// checked against the root of its time.
func (s *Store) Reexamine(ctx context.Context) error {
	s.trust.forget()
	for after := int64(0); ; {
		type doubt struct {
			id int64
			at time.Time
			*Signer
		}
		var doubts []doubt
		rows := 0
		err := s.each(ctx, `SELECT e.id, g.der, CASE e.set_valid WHEN 1 THEN e.integrated END FROM entries e JOIN signers g ON g.id = e.signer_id
			WHERE e.trust <> '' AND e.id > ? ORDER BY e.id LIMIT 1000`, []any{after}, func(scan scan) error {
			var der []byte
			var integrated sql.NullInt64
			d := doubt{}
			if err := scan(&d.id, &der, &integrated); err != nil {
				return err
			}
			after = d.id
			rows++
			signer, err := ParseSigner(der)
			if err != nil {
				return nil // will not become readable
			}
			d.Signer, d.at = &signer, signer.NotBefore
			if integrated.Valid {
				d.at = time.Unix(integrated.Int64, 0)
			}
			doubts = append(doubts, d)
			return nil
		})
		if err != nil {
			return s.fail("reading the entries to examine again", err)
		}
		if rows == 0 {
			return nil
		}
		for _, d := range doubts {
			if s.trust.check(d.Signer, d.at) != "" {
				continue
			}
			if err := s.write(ctx, "trusting an entry", func(t *tx) error {
				if _, err := t.exec(`UPDATE entries SET trust = '' WHERE id = ?`, d.id); err != nil {
					return err
				}
				if err := t.widen(EntryID(d.id)); err != nil {
					return err
				}
				if _, err := t.exec(`INSERT INTO unjudged (file_id, entry_id) SELECT DISTINCT file_id, entry_id FROM bindings WHERE entry_id = ?
					ON CONFLICT (file_id, entry_id) DO UPDATE SET early = 0`, d.id); err != nil {
					return err
				}
				_, err := t.exec(`UPDATE projects SET identities = 1 WHERE id IN (SELECT f.project_id FROM bindings b JOIN files f ON f.id = b.file_id WHERE b.entry_id = ?)`, d.id)
				return err
			}); err != nil {
				return err
			}
		}
	}
}
