-- +goose Up
-- Package indexes: PyPI, and others that are watched beside it. A project, a journal
-- and a file belong to one of them; the same name on two is two projects.
CREATE TABLE indexes (
  id     INTEGER PRIMARY KEY,
  name   TEXT    NOT NULL UNIQUE,              -- as configured
  url    TEXT    NOT NULL,                     -- last configured
  serial INTEGER                               -- up to where the journal has been read, NULL: never
) STRICT;
INSERT INTO indexes (id, name, url, serial) VALUES
  (0, 'pypi', 'https://pypi.org', (SELECT CAST(value AS INTEGER) FROM settings WHERE key = 'journal_serial'));
DELETE FROM settings WHERE key = 'journal_serial';

-- A UNIQUE of a table cannot be changed, so the table is made again under its name.
CREATE TABLE new_projects (
  id          INTEGER PRIMARY KEY,
  index_id    INTEGER NOT NULL REFERENCES indexes (id),
  name        TEXT    NOT NULL,                -- PEP 503
  serial      INTEGER NOT NULL DEFAULT 0,      -- of the newest simple JSON stored
  status      TEXT    NOT NULL DEFAULT '',     -- PEP 792, as served
  first_seen  INTEGER NOT NULL,
  listed      INTEGER,                         -- when the first whole file list was stored
  identities  INTEGER NOT NULL DEFAULT 1,      -- 1: the identities that the project has used are to be looked through again
  UNIQUE (index_id, name)
) STRICT;
INSERT INTO new_projects (id, index_id, name, serial, status, first_seen, listed, identities)
  SELECT id, 0, name, serial, status, first_seen, listed, identities FROM projects;
DROP TABLE projects;
ALTER TABLE new_projects RENAME TO projects;
CREATE INDEX projects_by_name ON projects (name);
CREATE INDEX projects_identities ON projects (id) WHERE identities = 1;

CREATE TABLE new_journal (
  index_id INTEGER NOT NULL REFERENCES indexes (id),
  serial   INTEGER NOT NULL,
  project  TEXT    NOT NULL,                   -- PEP 503 form of name
  name     TEXT    NOT NULL,
  version  TEXT,
  at       INTEGER NOT NULL,
  action   TEXT    NOT NULL,
  PRIMARY KEY (index_id, serial)
) STRICT, WITHOUT ROWID;
INSERT INTO new_journal (index_id, serial, project, name, version, at, action)
  SELECT 0, serial, project, name, version, at, action FROM journal;
DROP TABLE journal;
ALTER TABLE new_journal RENAME TO journal;
CREATE INDEX journal_by_project ON journal (project, index_id, serial);

ALTER TABLE alerts ADD COLUMN index_name TEXT NOT NULL DEFAULT ''; -- '': PyPI, or about a log

-- Migrations run without foreign keys being enforced (migrate.go). One row that
-- points nowhere fails this one, and all of it is taken back.
CREATE TABLE violations (n INTEGER NOT NULL CONSTRAINT each_reference_leads_to_a_row CHECK (n = 0)) STRICT;
INSERT INTO violations SELECT count(*) FROM pragma_foreign_key_check;
DROP TABLE violations;
