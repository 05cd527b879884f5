-- +goose Up
-- Of a digest six bytes are enough to find it again: whoever finds a row works the
-- whole digest out from the file, or fetches the leaf. With a hundred million rows
-- one leaf in three million is looked at in vain.

-- What a leaf would hold if it concerned a file, but for the file's own digest, which
-- files_by_sha256 finds. The forms are worked out again (ExpectedDigests).
CREATE TABLE expected_9 (
  prefix  BLOB    NOT NULL CHECK (length(prefix) = 6),
  file_id INTEGER NOT NULL REFERENCES files (id),
  PRIMARY KEY (prefix, file_id)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO expected_9 SELECT substr(digest, 1, 6), file_id FROM expected WHERE form <> 'artifact';
DROP TABLE expected;
ALTER TABLE expected_9 RENAME TO expected;

-- The publishers that the certificates of unbound leaves name. Nobody has checked
-- those certificates.
CREATE TABLE claimed_publishers (
  id            INTEGER PRIMARY KEY,
  key           BLOB NOT NULL UNIQUE CHECK (length(key) = 16), -- begin of SHA-256 of Publisher.Key
  issuer        TEXT NOT NULL,
  repository    TEXT NOT NULL,
  repository_id TEXT NOT NULL,
  owner         TEXT NOT NULL,
  owner_id      TEXT NOT NULL,
  workflow      TEXT NOT NULL,
  environment   TEXT NOT NULL,
  identity      TEXT NOT NULL
) STRICT;
CREATE INDEX claimed_publishers_by_id ON claimed_publishers (repository_id, identity);

-- Leaves that could become PyPI-bound when a file appears; then the leaf is fetched
-- and proven again. The ids grow as the leaves come, so that the oldest are first.
CREATE TABLE unbound_9 (
  id        INTEGER PRIMARY KEY,
  digest    BLOB    NOT NULL CHECK (length(digest) = 6),
  log_id    INTEGER NOT NULL,
  idx       INTEGER NOT NULL,
  claimed   INTEGER,                           -- claimed_publishers; NULL: unreadable, or from before the column
  signed_at INTEGER,                           -- Unix seconds: v1, integrated time that the log has signed; v2, the certificate's begin; NULL: neither is there
  seen      INTEGER NOT NULL                   -- Unix seconds
) STRICT;
INSERT INTO unbound_9 (digest, log_id, idx, seen) SELECT substr(digest, 1, 6), log_id, idx, seen FROM unbound ORDER BY seen;
DROP TABLE unbound;
ALTER TABLE unbound_9 RENAME TO unbound;
CREATE UNIQUE INDEX unbound_by_digest ON unbound (digest, log_id, idx);
CREATE INDEX unbound_by_claimed ON unbound (claimed) WHERE claimed IS NOT NULL;

-- Names in the subject of statements that PyPI stores for a file, where they are not
-- the file's: another order of a wheel's tags, an old spelling.
CREATE TABLE attested_names (
  file_id INTEGER NOT NULL REFERENCES files (id),
  name    TEXT    NOT NULL,
  PRIMARY KEY (file_id, name)
) STRICT, WITHOUT ROWID;

-- How often each form of the statement templates was met: 'bound' to a file, 'attested'
-- in a provenance object, or there and 'unknown', with the reason for a form.
CREATE TABLE forms (
  what TEXT    NOT NULL CHECK (what IN ('bound', 'attested', 'unknown')),
  form TEXT    NOT NULL,
  n    INTEGER NOT NULL,
  last INTEGER NOT NULL,                       -- 0: before they were counted
  PRIMARY KEY (what, form)
) STRICT, WITHOUT ROWID;
INSERT INTO forms SELECT 'bound', form, count(*), 0 FROM bindings WHERE form <> '' GROUP BY form;

-- 1: the statement is no publish statement, and its subject names the file's digest.
ALTER TABLE provenance_leaves ADD COLUMN subject INTEGER NOT NULL DEFAULT 0;
