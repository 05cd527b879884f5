-- +goose Up
-- Files with a provenance object that no trusted root has been asked about.
CREATE TABLE unverified (
  file_id INTEGER PRIMARY KEY REFERENCES files (id)
) STRICT;
INSERT INTO unverified SELECT file_id FROM provenance WHERE state = 'present';

-- Provenance objects that were held against a trusted root.
CREATE TABLE verifications (
  file_id INTEGER PRIMARY KEY REFERENCES files (id),
  root    TEXT    NOT NULL,                    -- SHA-256 of the trusted root in use, hex
  at      INTEGER NOT NULL,
  doubt   INTEGER NOT NULL,                    -- 1: another trusted root may come to another verdict
  judged  INTEGER NOT NULL                     -- 1: the rules have seen it, or nothing in it concerns them
) STRICT;
CREATE INDEX verifications_in_doubt ON verifications (root) WHERE doubt = 1;
CREATE INDEX verifications_unjudged ON verifications (file_id) WHERE judged = 0;

-- What became of each attestation of such an object.
CREATE TABLE verdicts (
  file_id     INTEGER NOT NULL REFERENCES verifications (file_id) ON DELETE CASCADE,
  bundle      INTEGER NOT NULL,                -- place in the object, from 0
  attestation INTEGER NOT NULL,                -- place in the bundle, from 0
  verdict     TEXT    NOT NULL CHECK (verdict IN ('holds', 'invalid', 'unknown')),
  failed      TEXT    NOT NULL,                -- the condition that failed first; '' if all hold
  error       TEXT    NOT NULL,                -- why, bounded and printable
  predicate   TEXT    NOT NULL,
  publisher   TEXT    NOT NULL,                -- PyPI's publisher object, JSON as served
  root        TEXT    NOT NULL,                -- SHA-256 of the trusted root that gave the verdict
  at          INTEGER NOT NULL,
  leaves      BLOB    NOT NULL,                -- leaf hashes of its log entries, 32 bytes each
  PRIMARY KEY (file_id, bundle, attestation)
) STRICT, WITHOUT ROWID;

-- Log entries of provenance objects that were not found in their log: not yet, because
-- their place is not covered, or never, because something else is there.
CREATE TABLE absent_leaves (
  file_id INTEGER NOT NULL,
  key_id  BLOB    NOT NULL,
  global  INTEGER NOT NULL,
  state   TEXT    NOT NULL CHECK (state IN ('not-covered', 'not-in-log')),
  at      INTEGER NOT NULL,                    -- since when it is in this state
  judged  INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (file_id, key_id, global),
  FOREIGN KEY (file_id, key_id, global) REFERENCES provenance_leaves (file_id, key_id, global)
) STRICT, WITHOUT ROWID;
CREATE INDEX absent_leaves_pending ON absent_leaves (file_id, key_id, global) WHERE state = 'not-covered';
CREATE INDEX absent_leaves_unjudged ON absent_leaves (file_id) WHERE state = 'not-in-log' AND judged = 0;
