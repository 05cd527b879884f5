-- +goose Up
-- What a package index showed, by the time at which it was seen here. The present
-- state is in projects, files and provenance; this is how it came about. Nothing is
-- taken out. Rows are numbered within a project in the order in which they came.
CREATE TABLE pypi_events (
  project_id INTEGER NOT NULL REFERENCES projects (id),
  n          INTEGER NOT NULL,
  file_id    INTEGER REFERENCES files (id),    -- NULL: about a release, or the project
  version    TEXT,                             -- NULL: the file's own; '': about the project
  kind       TEXT    NOT NULL,                 -- events.go lists them
  at         INTEGER NOT NULL,                 -- our clock at the answer
  first      INTEGER,                          -- our clock at the first of two answers; NULL: one was enough
  source     TEXT    NOT NULL CHECK (source IN ('listing', 'journal', 'integrity')),
  serial     INTEGER NOT NULL,                 -- of the listing or the journal row, 0: not given
  since      INTEGER NOT NULL,                 -- serial of the listing before: it happened later
  before     TEXT,
  after      TEXT,
  journal    INTEGER,                          -- serial of the journal row that gives the reason; NULL: none yet
  PRIMARY KEY (project_id, n)
) STRICT, WITHOUT ROWID;
-- A journal row may come before or after the listing that it explains.
CREATE INDEX pypi_events_explainable ON pypi_events (project_id, serial)
  WHERE kind IN ('removed', 'restored', 'yanked', 'unyanked', 'yank-reason-changed', 'status-changed', 'project-removed', 'project-created-again');

-- Files that the list lacks and that are not removed: their release is quarantined,
-- or one listing lacked them that may be a cache's.
CREATE TABLE unlisted (
  project_id INTEGER NOT NULL REFERENCES projects (id),
  file_id    INTEGER NOT NULL REFERENCES files (id),
  first      INTEGER NOT NULL,                 -- when it was first missing
  since      INTEGER NOT NULL,                 -- serial of the last listing that had it
  hidden     INTEGER NOT NULL,                 -- 1: its release is quarantined
  PRIMARY KEY (project_id, file_id)
) STRICT, WITHOUT ROWID;

-- Listings that differ from the stored one under the same serial. The second look
-- that shows the same counts.
CREATE TABLE listing_doubts (
  project_id INTEGER PRIMARY KEY REFERENCES projects (id),
  digest     BLOB    NOT NULL,                 -- of what the listing says
  first      INTEGER NOT NULL,                 -- when it first said so
  looks      INTEGER NOT NULL,                 -- at listings that all differed
  due        INTEGER NOT NULL                  -- when to look again
) STRICT;

-- Provenance objects that were served for a file after its first one, which stays in
-- provenance.
CREATE TABLE provenance_later (
  file_id INTEGER NOT NULL REFERENCES files (id),
  sha256  BLOB    NOT NULL CHECK (length(sha256) = 32),
  seen    INTEGER NOT NULL,
  body    BLOB    NOT NULL,                    -- byte for byte
  PRIMARY KEY (file_id, sha256)
) STRICT;

-- Provenance that was served before and not found once.
CREATE TABLE provenance_missing (
  file_id INTEGER PRIMARY KEY REFERENCES files (id),
  first   INTEGER NOT NULL
) STRICT;

-- An object that is there is asked for again when the listing says something new.
CREATE INDEX provenance_again ON provenance (next) WHERE state IN ('present', 'unreadable') AND next < 9223372036854775807;

-- What the tables of before remember of it. Of a yank they do not know the time.
INSERT INTO pypi_events (project_id, n, file_id, kind, at, source, serial, since)
  SELECT project_id, row_number() OVER (PARTITION BY project_id ORDER BY at, id, kind), id, kind, at, source, 0, 0 FROM (
    SELECT project_id, id, 'file-listed' AS kind, first_seen AS at, 'listing' AS source FROM files
    UNION ALL SELECT project_id, id, 'removed', gone, 'listing' FROM files WHERE gone IS NOT NULL
    UNION ALL SELECT f.project_id, f.id, 'provenance-seen', v.fetched, 'integrity' FROM provenance v JOIN files f ON f.id = v.file_id WHERE v.body IS NOT NULL AND v.fetched IS NOT NULL);
