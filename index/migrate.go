package index

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID is what the first migration writes into the file's header.
const applicationID = 0x73696774

var (
	// ErrSchema reports a database made for another version of sigtrail.
	ErrSchema = errors.New("schema does not fit this version")
	// ErrForeign reports a SQLite database of some other program.
	ErrForeign = errors.New("not a sigtrail database")
)

func provider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithLogger(goose.NopLogger()),
		goose.WithDisableGlobalRegistry(true), goose.WithGoMigrations(clustered, goose.NewGoMigration(12, &goose.GoFunc{RunTx: fillSpans}, nil)))
}

// newestSchema is the schema version that this program writes.
func newestSchema(p *goose.Provider) int64 {
	newest := int64(0)
	for _, m := range p.ListSources() {
		newest = max(newest, m.Version)
	}
	return newest
}

// migrate brings a database up to this program's schema. Each migration is a
// transaction, so a crash leaves the one before whole and the next start goes on.
// Foreign keys are not enforced meanwhile: SQLite would not let a table be made
// again that others refer to. A migration that does so checks them itself.
func migrate(ctx context.Context, db *sql.DB) error {
	tables, id, err := identify(ctx, db)
	if err != nil {
		return err
	}
	if tables > 0 && id != applicationID {
		// A first start that died before its first migration leaves goose's
		// own table and nothing else.
		var other int
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name <> 'goose_db_version'`).Scan(&other); err != nil {
			return err
		}
		if other > 0 {
			return fmt.Errorf("%w: it holds the tables of another program; choose another path", ErrForeign)
		}
	}
	p, err := provider(db)
	if err != nil {
		return err
	}
	if tables > 0 {
		have, err := p.GetDBVersion(ctx)
		if err != nil {
			return err
		}
		if newest := newestSchema(p); have > newest {
			return fmt.Errorf("%w: the database has schema %d, this program knows up to %d; use the newer sigtrail that wrote it", ErrSchema, have, newest)
		}
	}
	// Outside of a transaction, and on the writer's only connection.
	if _, err := db.ExecContext(ctx, `PRAGMA foreign_keys = OFF`); err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bringing the schema up to date: %w", err)
	}
	_, err = db.ExecContext(ctx, `PRAGMA foreign_keys = ON`)
	return err
}

// checkSchema refuses, for a reader, a database that this program cannot read.
func checkSchema(ctx context.Context, db *sql.DB) error {
	tables, id, err := identify(ctx, db)
	if err != nil {
		return err
	}
	if id != applicationID {
		if tables == 0 {
			return fmt.Errorf("%w: it is empty; give the path of the monitor's database", ErrForeign)
		}
		return fmt.Errorf("%w: it holds the tables of another program; give the path of the monitor's database", ErrForeign)
	}
	var have int64
	// goose's own table, read here because its provider would want to write.
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied = 1`).Scan(&have); err != nil {
		return err
	}
	p, err := provider(db)
	if err != nil {
		return err
	}
	switch newest := newestSchema(p); {
	case have > newest:
		return fmt.Errorf("%w: the database has schema %d, this program knows up to %d; use the newer sigtrail that wrote it", ErrSchema, have, newest)
	case have < newest:
		return fmt.Errorf("%w: the database has schema %d, this program needs %d; run monitor on it once, which migrates it", ErrSchema, have, newest)
	}
	return nil
}

func identify(ctx context.Context, db *sql.DB) (tables int, id int64, err error) {
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE type = 'table'`).Scan(&tables); err != nil {
		return 0, 0, err
	}
	err = db.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id)
	return tables, id, err
}
