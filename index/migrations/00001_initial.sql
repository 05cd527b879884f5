-- +goose Up
-- Times are Unix microseconds, UTC. Hashes and keys are raw bytes. NULL means
-- "not there"; an empty text means "there, and empty".

-- Marks the file as sigtrail's ("sigt"), so that it is never mistaken for, and
-- never written into, another program's database.
PRAGMA application_id = 0x73696774;

CREATE TABLE logs (
  id           INTEGER PRIMARY KEY,
  origin       TEXT    NOT NULL,
  key_id       BLOB    NOT NULL CHECK (length(key_id) = 32),
  api          TEXT    NOT NULL CHECK (api IN ('v1', 'v2')),
  url          TEXT    NOT NULL,
  tree_id      TEXT    NOT NULL DEFAULT '0',   -- decimal: a v1 tree id may exceed 63 bits
  first_global INTEGER NOT NULL DEFAULT 0,
  closed       INTEGER NOT NULL DEFAULT 0,
  next         INTEGER,                        -- the tail's position, NULL: not tailed
  range        BLOB,                           -- compact range [0, next), 32 bytes a hash, left to right
  UNIQUE (origin, key_id)
) STRICT;

-- Every distinct signed text. v1 signs the same text afresh for every request,
-- so the first signature seen stands for all.
CREATE TABLE heads (
  id       INTEGER PRIMARY KEY,
  log_id   INTEGER NOT NULL REFERENCES logs (id),
  size     INTEGER NOT NULL,
  root     BLOB    NOT NULL CHECK (length(root) = 32),
  text     TEXT    NOT NULL,
  note     BLOB    NOT NULL,
  seen     INTEGER NOT NULL,
  verified INTEGER NOT NULL,                   -- 0: one side of a contradiction, never built upon
  UNIQUE (log_id, text)
) STRICT;
CREATE INDEX heads_by_size ON heads (log_id, size) WHERE verified = 1;

CREATE TABLE contradictions (
  id      INTEGER PRIMARY KEY,
  kind    TEXT    NOT NULL,
  log_id  INTEGER NOT NULL REFERENCES logs (id),
  subject TEXT    NOT NULL,
  ours    BLOB    NOT NULL,                    -- signed note; empty: none seen before
  theirs  BLOB    NOT NULL,                    -- as served, verified or not
  text    TEXT    NOT NULL,                    -- what theirs signs: v1 signs one text afresh for each request
  proof   BLOB    NOT NULL,
  detail  TEXT    NOT NULL,
  seen    INTEGER NOT NULL,
  judged  INTEGER NOT NULL DEFAULT 0,
  UNIQUE (kind, log_id, subject, text)
) STRICT;
CREATE INDEX contradictions_unjudged ON contradictions (id) WHERE judged = 0;

-- Proven and indexed leaf ranges, [first, past). Ranges of one log never touch.
CREATE TABLE coverage (
  log_id INTEGER NOT NULL REFERENCES logs (id),
  first  INTEGER NOT NULL,
  past   INTEGER NOT NULL,
  PRIMARY KEY (log_id, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE publishers (
  id            INTEGER PRIMARY KEY,
  key           TEXT NOT NULL UNIQUE,          -- Publisher.Key
  issuer        TEXT NOT NULL,
  repository    TEXT NOT NULL,
  repository_id TEXT NOT NULL,
  owner         TEXT NOT NULL,
  owner_id      TEXT NOT NULL,
  workflow      TEXT NOT NULL,
  environment   TEXT NOT NULL,
  identity      TEXT NOT NULL
) STRICT;

-- One row a certificate. Whatever is not a column is read from the DER again.
CREATE TABLE signers (
  id           INTEGER PRIMARY KEY,
  fingerprint  BLOB NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
  der          BLOB NOT NULL,
  publisher_id INTEGER NOT NULL REFERENCES publishers (id),
  run          TEXT,                           -- .21
  commit_id    TEXT                            -- .13
) STRICT;
CREATE INDEX signers_by_publisher ON signers (publisher_id);

-- Proven entries that are bound to a file.
CREATE TABLE entries (
  id         INTEGER PRIMARY KEY,
  log_id     INTEGER NOT NULL REFERENCES logs (id),
  idx        INTEGER NOT NULL,                 -- in the tree
  leaf_hash  BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
  kind       TEXT    NOT NULL,
  digest     BLOB,
  body       BLOB    NOT NULL,                 -- the leaf, byte for byte
  signer_id  INTEGER REFERENCES signers (id),  -- NULL: bare key, or unreadable certificate
  trust      TEXT    NOT NULL,                 -- '': the chain holds at the entry's time; else why not
  integrated INTEGER,                          -- v1: Unix seconds as served; NULL for v2
  set_sig    BLOB,                             -- v1: signed entry timestamp
  set_valid  INTEGER NOT NULL DEFAULT 0,
  head_id    INTEGER NOT NULL REFERENCES heads (id),
  proof      BLOB,                             -- inclusion under head_id, 32 bytes a hash; NULL: tailed
  seen       INTEGER NOT NULL,
  UNIQUE (log_id, idx)
) STRICT;
CREATE INDEX entries_by_leaf ON entries (leaf_hash);
CREATE INDEX entries_by_signer ON entries (signer_id);
-- A file that appears later may share its digest with an entry bound already.
CREATE INDEX entries_by_digest ON entries (digest);

-- Leaves that could become PyPI-bound when a file appears. The leaf itself is
-- fetched and proven again then.
CREATE TABLE unbound (
  digest BLOB    NOT NULL,
  log_id INTEGER NOT NULL,
  idx    INTEGER NOT NULL,
  seen   INTEGER NOT NULL,                     -- Unix seconds
  PRIMARY KEY (digest, log_id, idx)
) STRICT, WITHOUT ROWID;

-- Leaves to fetch: an unbound one whose file has appeared.
CREATE TABLE wanted (
  log_id INTEGER NOT NULL REFERENCES logs (id),
  idx    INTEGER NOT NULL,
  PRIMARY KEY (log_id, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE projects (
  id          INTEGER PRIMARY KEY,
  name        TEXT    NOT NULL UNIQUE,         -- PEP 503
  serial      INTEGER NOT NULL DEFAULT 0,      -- of the newest simple JSON stored
  status      TEXT    NOT NULL DEFAULT '',     -- PEP 792, as served
  first_seen  INTEGER NOT NULL,
  listed      INTEGER                          -- when the first whole file list was stored
) STRICT;

CREATE TABLE files (
  id             INTEGER PRIMARY KEY,
  project_id     INTEGER NOT NULL REFERENCES projects (id),
  version        TEXT    NOT NULL,
  filename       TEXT    NOT NULL,
  sha256         BLOB    NOT NULL CHECK (length(sha256) = 32),
  size           INTEGER NOT NULL,
  uploaded       INTEGER,                      -- PyPI's upload-time; NULL: not given
  url            TEXT    NOT NULL,
  provenance_url TEXT,                         -- NULL: PyPI names none
  yanked         TEXT,                         -- NULL: no; else the reason, maybe empty
  first_seen     INTEGER NOT NULL,
  gone           INTEGER,                      -- when it was first missing from the list
  first_listing  INTEGER NOT NULL,             -- 1: was there when the project was first read
  judged         INTEGER NOT NULL DEFAULT 0,
  UNIQUE (project_id, filename, sha256)
) STRICT;
CREATE INDEX files_by_sha256 ON files (sha256);
CREATE INDEX files_by_name ON files (filename);
CREATE INDEX files_unjudged ON files (project_id) WHERE judged = 0;

-- What a leaf would hold if it concerned a file (statement.go lists the forms).
CREATE TABLE expected (
  digest  BLOB    NOT NULL CHECK (length(digest) = 32),
  file_id INTEGER NOT NULL REFERENCES files (id),
  form    TEXT    NOT NULL,
  PRIMARY KEY (digest, file_id, form)
) STRICT, WITHOUT ROWID;

CREATE TABLE provenance (
  file_id INTEGER PRIMARY KEY REFERENCES files (id),
  state   TEXT    NOT NULL CHECK (state IN ('pending', 'present', 'absent', 'refused', 'unreadable')),
  body    BLOB,                                -- byte for byte
  fetched INTEGER,
  tries   INTEGER NOT NULL DEFAULT 0,
  next    INTEGER NOT NULL DEFAULT 0,
  error   TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX provenance_pending ON provenance (next) WHERE state IN ('pending', 'refused');

-- The log entries that a provenance object names.
CREATE TABLE provenance_leaves (
  file_id   INTEGER NOT NULL REFERENCES files (id),
  key_id    BLOB    NOT NULL,                  -- the log's key
  global    INTEGER NOT NULL,                  -- v1: over all shards
  leaf_hash BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
  predicate TEXT    NOT NULL,
  publisher TEXT    NOT NULL,                  -- PyPI's publisher object, JSON as served
  PRIMARY KEY (file_id, key_id, global)
) STRICT, WITHOUT ROWID;
CREATE INDEX provenance_leaves_by_hash ON provenance_leaves (leaf_hash);

CREATE TABLE bindings (
  file_id   INTEGER NOT NULL REFERENCES files (id),
  entry_id  INTEGER NOT NULL REFERENCES entries (id),
  evidence  TEXT    NOT NULL,                  -- strongest first: statement, provenance, artifact, subject
  form      TEXT    NOT NULL,                  -- "P1/payload", …; '' where none
  signature TEXT    NOT NULL,                  -- '': verifies over the rebuilt bytes; else why not, or 'not checked'
  PRIMARY KEY (file_id, entry_id, evidence)
) STRICT, WITHOUT ROWID;
CREATE INDEX bindings_by_entry ON bindings (entry_id);

-- One row for each (file, entry) pair that the rules have yet to see.
CREATE TABLE unjudged (
  file_id  INTEGER NOT NULL,
  entry_id INTEGER NOT NULL,
  PRIMARY KEY (file_id, entry_id)
) STRICT, WITHOUT ROWID;

-- When to ask a v1 server about a file. The search index is best effort, so an
-- empty answer is asked again.
CREATE TABLE lookups (
  file_id INTEGER NOT NULL REFERENCES files (id),
  server  TEXT    NOT NULL,
  step    INTEGER NOT NULL DEFAULT 0,          -- how many times it was answered
  next    INTEGER,                             -- NULL: no more
  asked   INTEGER,
  found   INTEGER NOT NULL DEFAULT 0,          -- entries in the last answer
  error   TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (file_id, server)
) STRICT, WITHOUT ROWID;
CREATE INDEX lookups_due ON lookups (server, next) WHERE next IS NOT NULL;
-- A project is settled once each of its files has had one answer.
CREATE INDEX lookups_unanswered ON lookups (file_id) WHERE step = 0;

CREATE TABLE journal (
  serial  INTEGER PRIMARY KEY,
  project TEXT    NOT NULL,                    -- PEP 503 form of name
  name    TEXT    NOT NULL,
  version TEXT,
  at      INTEGER NOT NULL,
  action  TEXT    NOT NULL
) STRICT;
CREATE INDEX journal_by_project ON journal (project, serial);

CREATE TABLE pins (
  id           INTEGER PRIMARY KEY,
  project_id   INTEGER NOT NULL REFERENCES projects (id),
  publisher_id INTEGER NOT NULL REFERENCES publishers (id),
  state        TEXT    NOT NULL CHECK (state IN ('learned', 'approved', 'rejected', 'expired')),
  how          TEXT    NOT NULL,
  made         INTEGER NOT NULL,
  UNIQUE (project_id, publisher_id)
) STRICT;

CREATE TABLE alerts (
  id       TEXT    PRIMARY KEY,                -- stable: the same finding has the same id on every run
  rule     TEXT    NOT NULL,
  severity TEXT    NOT NULL,
  project  TEXT    NOT NULL,                   -- '' for alerts on logs
  version  TEXT    NOT NULL,
  raised   INTEGER NOT NULL,
  body     BLOB    NOT NULL                    -- JSON, as delivered
) STRICT, WITHOUT ROWID;
CREATE INDEX alerts_by_project ON alerts (project, raised);

CREATE TABLE outbox (
  alert_id  TEXT    NOT NULL REFERENCES alerts (id),
  sink      TEXT    NOT NULL,
  tries     INTEGER NOT NULL DEFAULT 0,
  next      INTEGER NOT NULL,
  delivered INTEGER,
  error     TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (alert_id, sink)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (sink, next) WHERE delivered IS NULL;

CREATE TABLE settings (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
