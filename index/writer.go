package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
)

// A writer is the one connection that writes, with its statements kept prepared:
// preparing one costs more than running it.
type writer struct {
	db    *sql.DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // by their text, of which the program has a fixed number

	schema int64 // that the program writes
}

// openWriter makes or migrates the database first; beside a monitor it does
// neither.
func openWriter(ctx context.Context, path string, beside bool) (_ *writer, err error) {
	q := url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {"NORMAL"}, "_foreign_keys": {"1"},
		"_busy_timeout": {"10000"}, "_txlock": {"immediate"}, "_cache_size": {"-16000"},
	}
	prepare := migrate
	if beside {
		q.Set("mode", "rw")
		q.Del("_journal_mode") // only a monitor's database is written to, and that has it
		prepare = checkSchema
	}
	db, err := sql.Open("sqlite3", dsn(path, q))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	db.SetMaxOpenConns(1)
	if err := prepare(ctx, db); err != nil {
		return nil, err
	}
	p, err := provider(db)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// Let the WAL grow to 32 MB before its pages move to the file: a tail
	// rewrites the same pages again and again. What a long read made it grow
	// beyond that is given back.
	for _, pragma := range []string{`PRAGMA wal_autocheckpoint = 8000`, `PRAGMA journal_size_limit = 67108864`} {
		if _, err := conn.ExecContext(ctx, pragma); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return &writer{db: db, conn: conn, stmts: make(map[string]*sql.Stmt), schema: newestSchema(p)}, nil
}

func (w *writer) close() error {
	var errs []error
	for _, stmt := range w.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, w.conn.Close(), w.db.Close())...)
}

// A tx is the transaction under way on the writer. Its context is never
// cancelled: the driver would start a goroutine for each statement, and a
// transaction is short.
type tx struct {
	ctx   context.Context
	w     *writer
	after []func() // to call once it has committed, before the next one begins
	grown bool     // it has added to what leaves are held against
}

// write runs f in a transaction that it commits unless f fails. An error of f
// keeps its identity.
func (s *Store) write(ctx context.Context, doing string, f func(*tx) error) error {
	err := s.transact(ctx, f)
	if err != nil {
		return s.fail(doing, err)
	}
	return nil
}

func (s *Store) transact(ctx context.Context, f func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.writer == nil {
		return ErrReadOnly
	}
	t := &tx{ctx: context.WithoutCancel(ctx), w: s.writer}
	if _, err := t.exec(`BEGIN IMMEDIATE`); err != nil {
		return err
	}
	err := s.catchUp(t)
	if err == nil {
		err = f(t)
	}
	if err == nil {
		err = s.countGrowth(t)
	}
	if err == nil {
		_, err = t.exec(`COMMIT`)
	}
	if err != nil {
		// After some failures, a full disk among them, SQLite has rolled
		// back already and says that there is nothing to roll back.
		_, _ = t.exec(`ROLLBACK`)
		return err
	}
	for _, f := range t.after {
		f()
	}
	return nil
}

// then has f called once the transaction has committed.
func (t *tx) then(f func()) { t.after = append(t.after, f) }

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if stmt := t.w.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := t.w.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", query, err)
	}
	t.w.stmts[query] = stmt
	return stmt, nil
}

// exec returns how many rows changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	stmt, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := stmt.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// get scans the one row of an answer; sql.ErrNoRows if there is none.
func (t *tx) get(query string, args []any, dest ...any) error {
	stmt, err := t.stmt(query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(t.ctx, args...).Scan(dest...)
}

// each calls f for every row. f must not write: the answer is still open.
func (t *tx) each(query string, args []any, f func(scan) error) error {
	stmt, err := t.stmt(query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(t.ctx, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

// each is the same for the readers.
func (s *Store) each(ctx context.Context, query string, args []any, f func(scan) error) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

type scan func(dest ...any) error

func drain(rows *sql.Rows, f func(scan) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
