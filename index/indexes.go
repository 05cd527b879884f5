package index

import (
	"context"
	"database/sql"
)

// An IndexExtent is how far the journal of a package index has been read.
type IndexExtent struct {
	Name   string // "": PyPI
	Serial *int64 // nil: never read
}

// IndexExtents lists the package indexes.
func (s *Store) IndexExtents(ctx context.Context) ([]IndexExtent, error) {
	var all []IndexExtent
	err := s.each(ctx, `SELECT CASE id WHEN 0 THEN '' ELSE name END, serial FROM indexes ORDER BY id`, nil, func(scan scan) error {
		var x IndexExtent
		var serial sql.NullInt64
		err := scan(&x.Name, &serial)
		if serial.Valid {
			x.Serial = &serial.Int64
		}
		all = append(all, x)
		return err
	})
	if err != nil {
		return nil, s.fail("reading the package indexes", err)
	}
	return all, nil
}
