package index

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/monitor"
)

var _ monitor.SingleStore = (*Store)(nil)

// Options of a Store. The zero value works, and trusts no certificate.
type Options struct {
	Trust      Trust
	Registerer prometheus.Registerer // nil: metrics are kept and shown to nobody
	Log        *slog.Logger          // nil: discard
	Now        func() time.Time      // nil: time.Now
	Watched    int                   // digests of files that are kept in memory, at most; 0: two million (40 MB). Beyond it the database is asked.
}

// A Store is the index in one SQLite file: one writer and several readers in one
// process, any number of readers in others, and now and then one that writes
// beside it (OpenBeside).
//
// The file is in WAL mode with synchronous=NORMAL. A commit is in the kernel's
// hands when it returns, so that killing the process at any moment loses nothing.
// Losing power may take back the last few commits, whole and in order: rows and
// the position that covers them go together and are read from the log again, an
// alert goes out again under its old id. Evidence against a log is made durable
// at once (see Contradict).
type Store struct {
	path    string
	log     *slog.Logger
	now     func() time.Time
	lock    *fileLock // nil: read-only
	db      *sql.DB   // readers
	turn    chan struct{}
	writer  *writer // used by whoever holds turn; nil: read-only
	beside  bool    // another process may write too: see OpenBeside
	watch   *watch
	claims  *claims
	turns   *turns
	growth  uint64 // up to which the watch is loaded; guarded by turn: see catchUp
	trust   *trustCache
	metrics *metrics

	stmts sync.Map // query: *sql.Stmt of the readers, closed with them

	byLeaf, askExpected, askFiles, askLeaves *sql.Stmt // of the readers
}

// ErrReadOnly reports a write to a store that was opened for reading, or closed.
var ErrReadOnly = errors.New("not open for writing")

// Open opens the database for the one process that writes to it, and makes or
// migrates it first where needed. ErrInUse when another process has it open this
// way; ErrSchema, ErrForeign.
func Open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	s := newStore(path, o)
	defer func() {
		if err != nil {
			err = errors.Join(failure(path, "opening", err), s.close())
		}
	}()
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, err
	}
	if s.writer, err = openWriter(ctx, path, false); err != nil {
		return nil, err
	}
	return s, s.begin(ctx, o)
}

// begin is the rest of opening, once there is a writer.
func (s *Store) begin(ctx context.Context, o Options) (err error) {
	if s.db, err = openReaders(ctx, s.path, false); err != nil {
		return err
	}
	if err = s.load(ctx); err != nil {
		return err
	}
	return s.metrics.register(o.Registerer, s)
}

// OpenReadOnly opens a database that a monitor may be writing to, or a copy of
// one (taken with its -wal file, or after a clean stop). ErrSchema, ErrForeign.
func OpenReadOnly(ctx context.Context, path string) (_ *Store, err error) {
	s := newStore(path, Options{})
	defer func() {
		if err != nil {
			err = errors.Join(failure(path, "opening for reading", err), s.close())
		}
	}()
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w; give the path of the monitor's database", err)
	}
	s.db, err = openReaders(ctx, path, false)
	if cannotShare(err) && empty(path+"-wal") {
		// A copy in a folder that may not be written to: WAL mode wants its
		// shared memory beside the file. Nobody writes there, so do without.
		s.db, err = openReaders(ctx, path, true)
	}
	if err != nil {
		return nil, err
	}
	return s, checkSchema(ctx, s.db)
}

func newStore(path string, o Options) *Store {
	s := &Store{path: path, log: o.Log, now: o.Now, turn: make(chan struct{}, 1),
		watch: newWatch(cmp.Or(o.Watched, watched)), claims: newClaims(), turns: newTurns(), trust: newTrustCache(o.Trust), metrics: newMetrics()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

// Close waits for the write under way and releases the file.
func (s *Store) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.close()
}

func (s *Store) close() error {
	s.metrics.unregister()
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.writer != nil {
		// Last, so that it is the one to fold the WAL into the file.
		errs = append(errs, s.writer.close())
		s.writer = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
		s.lock = nil
	}
	if err := errors.Join(errs...); err != nil {
		return failure(s.path, "closing", err)
	}
	return nil
}

// load prepares what indexing asks for each match, and reads what is kept in
// memory.
func (s *Store) load(ctx context.Context) (err error) {
	for query, stmt := range map[string]**sql.Stmt{filesByLeaf: &s.byLeaf,
		whichExpected: &s.askExpected, whichArtifacts: &s.askFiles, whichNamed: &s.askLeaves} {
		if *stmt, err = s.db.PrepareContext(ctx, query); err != nil {
			return err
		}
	}
	if !s.beside {
		// First the count: what is added in between is then loaded twice.
		if err := s.db.QueryRowContext(ctx, selectGrowth).Scan(&s.growth); err != nil {
			return err
		}
		if err := s.watch.load(func(query string, args []any, f func(scan) error) error { return s.each(ctx, query, args, f) }); err != nil {
			return fmt.Errorf("loading the expected digests: %w", err)
		}
		if s.watch.prefixes == nil {
			s.log.InfoContext(ctx, "more digests are expected than are kept in memory; the database is asked about each leaf", "kept at most", s.watch.most)
		}
	}
	return s.countUnbound(ctx)
}

// prepared keeps a statement: SQLite takes longer to prepare a short question than to
// answer it.
func (s *Store) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt, ok := s.stmts.Load(query); ok {
		return stmt.(*sql.Stmt), nil
	}
	stmt, err := s.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if other, ok := s.stmts.LoadOrStore(query, stmt); ok {
		return other.(*sql.Stmt), stmt.Close()
	}
	return stmt, nil
}

// dsn escapes the path, which may hold any character.
func dsn(path string, query url.Values) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	return u.String()
}

func openReaders(ctx context.Context, path string, immutable bool) (*sql.DB, error) {
	q := url.Values{"mode": {"ro"}, "_query_only": {"1"}, "_busy_timeout": {"10000"}, "_cache_size": {"-4000"}}
	if immutable {
		q.Set("immutable", "1")
	}
	db, err := sql.Open("sqlite3", dsn(path, q))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(max(4, runtime.GOMAXPROCS(0)))
	db.SetMaxIdleConns(4)
	var n int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&n); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func cannotShare(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrCantOpen || e.Code == sqlite3.ErrReadonly)
}

func empty(path string) bool {
	info, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0
}

// micros is the form in which times are stored; NULL for the zero time.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func timeOf(micros sql.NullInt64) time.Time {
	if !micros.Valid {
		return time.Time{}
	}
	return time.UnixMicro(micros.Int64).UTC()
}

// null is NULL for the empty string, for columns where both mean "not there".
func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// blob keeps an empty value apart from NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
