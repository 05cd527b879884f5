package index

import "context"

// unboundCount is the setting that counts the table unbound, which is too large to
// count at each scrape. It moves in the transactions that change the table, so that
// it holds whichever process they are of.
const unboundCount = "unbound_count"

func (t *tx) addUnbound(n int64) error {
	if n == 0 {
		return nil
	}
	_, err := t.exec(`UPDATE settings SET value = CAST(value AS INTEGER) + ? WHERE key = '`+unboundCount+`'`, n)
	return err
}

// countUnbound counts once, in databases that have no count yet.
func (s *Store) countUnbound(ctx context.Context) error {
	if _, ok, err := s.Setting(ctx, unboundCount); err != nil || ok {
		return err
	}
	return s.write(ctx, "counting what is unbound", func(t *tx) error {
		_, err := t.exec(`INSERT OR IGNORE INTO settings (key, value) SELECT '` + unboundCount + `', count(*) FROM unbound`)
		return err
	})
}
