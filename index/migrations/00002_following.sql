-- +goose Up
-- The log's verifier key (C2SP signed-note "vkey"), so that evidence can be judged
-- without a trusted root; '': not seen since the column exists.
ALTER TABLE logs ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE logs ADD COLUMN began INTEGER;                    -- first index of the tail, NULL: not tailed
ALTER TABLE logs ADD COLUMN closed_size INTEGER;              -- size of the tree when it was closed, NULL: open
-- The log's habit: when it last grew, when it was last asked, and the longest
-- time that it was seen to stand still and then grew again.
ALTER TABLE logs ADD COLUMN grown    INTEGER;
ALTER TABLE logs ADD COLUMN checked  INTEGER;
ALTER TABLE logs ADD COLUMN rest     INTEGER NOT NULL DEFAULT 0; -- microseconds
ALTER TABLE logs ADD COLUMN growths  INTEGER NOT NULL DEFAULT 0;
UPDATE logs SET began = (SELECT min(first) FROM coverage c WHERE c.log_id = logs.id) WHERE next IS NOT NULL;
UPDATE logs SET closed_size = (SELECT max(size) FROM heads h WHERE h.log_id = logs.id AND h.verified = 1) WHERE closed = 1;

-- Who showed the head first: '' the log itself, else a provenance object, a file,
-- another monitor.
ALTER TABLE heads ADD COLUMN source TEXT NOT NULL DEFAULT '';

-- Signatures on a head by others than the log. Unknown keys and kinds are kept.
CREATE TABLE cosignatures (
  head_id  INTEGER NOT NULL REFERENCES heads (id),
  name     TEXT    NOT NULL,
  hint     INTEGER NOT NULL,                   -- key id of the signature line
  at       INTEGER,                            -- the witness's clock; NULL: a kind that says none
  line     TEXT    NOT NULL,                   -- the signature line
  verified INTEGER NOT NULL,                   -- by a configured witness key
  PRIMARY KEY (head_id, name, hint)
) STRICT, WITHOUT ROWID;

-- Heads that came from elsewhere and wait to be compared with the log's own. One
-- that fits moves to heads.
CREATE TABLE elsewhere (
  id     INTEGER PRIMARY KEY,
  note   BLOB    NOT NULL UNIQUE,
  source TEXT    NOT NULL,
  seen   INTEGER NOT NULL,
  tries  INTEGER NOT NULL DEFAULT 0,
  next   INTEGER,                              -- NULL: never, the log has not signed it
  error  TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX elsewhere_due ON elsewhere (next);

-- Every distinct trusted root that was ever used.
CREATE TABLE trusted_roots (
  sha256     TEXT    PRIMARY KEY,
  body       TEXT    NOT NULL,
  source     TEXT    NOT NULL,                 -- where it came from
  first_seen INTEGER NOT NULL,
  last_seen  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO trusted_roots SELECT substr(key, 14), value, '', 0, 0 FROM settings WHERE key LIKE 'trusted_root:%';
DELETE FROM settings WHERE key LIKE 'trusted_root:%';

-- Ranges that an operator had read, to go on after an interruption.
CREATE TABLE scans (
  id       INTEGER PRIMARY KEY,
  log_id   INTEGER NOT NULL REFERENCES logs (id),
  given    TEXT    NOT NULL,                   -- range and selector as asked for, JSON: finds it again
  bounds   TEXT    NOT NULL,                   -- how the range was found, for people
  first    INTEGER NOT NULL,
  past     INTEGER NOT NULL,
  next     INTEGER NOT NULL,
  range    BLOB    NOT NULL,                   -- compact range [0, next)
  found    INTEGER NOT NULL DEFAULT 0,         -- leaves that match the selector
  started  INTEGER NOT NULL,
  finished INTEGER,
  UNIQUE (log_id, given)
) STRICT;

-- Proven leaves that match a scan's selector, whether or not a file is known.
CREATE TABLE scan_finds (
  scan_id    INTEGER NOT NULL REFERENCES scans (id),
  idx        INTEGER NOT NULL,
  body       BLOB    NOT NULL,                 -- the leaf, byte for byte
  integrated INTEGER NOT NULL,                 -- v1: Unix seconds as served
  set_sig    BLOB,                             -- v1: signed entry timestamp
  PRIMARY KEY (scan_id, idx)
) STRICT, WITHOUT ROWID;

-- When to ask a v1 server for entries by an identity that a project has used.
CREATE TABLE identity_lookups (
  project_id INTEGER NOT NULL REFERENCES projects (id),
  server     TEXT    NOT NULL,
  identity   TEXT    NOT NULL,                 -- exact subject alternative name
  step       INTEGER NOT NULL DEFAULT 0,
  next       INTEGER,                          -- NULL: no more until the project's next file
  asked      INTEGER,
  found      INTEGER NOT NULL DEFAULT 0,       -- entries in the last answer
  error      TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (project_id, server, identity)
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_lookups_due ON identity_lookups (server, next) WHERE next IS NOT NULL;

-- Leaves that are not what their kind demands, the first ones of each log.
CREATE TABLE malformed (
  log_id    INTEGER NOT NULL REFERENCES logs (id),
  idx       INTEGER NOT NULL,
  leaf_hash BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
  bytes     INTEGER NOT NULL,
  why       TEXT    NOT NULL,
  seen      INTEGER NOT NULL,
  PRIMARY KEY (log_id, idx)
) STRICT, WITHOUT ROWID;
