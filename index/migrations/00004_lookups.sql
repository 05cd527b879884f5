-- +goose Up
-- What a v1 server was asked about a file, by the kind of question. No row: that was
-- never asked. An empty answer is kept as what it is: asked, and nothing named.
CREATE TABLE answers (
  file_id INTEGER NOT NULL REFERENCES files (id),
  server  TEXT    NOT NULL,
  kind    TEXT    NOT NULL CHECK (kind IN ('provenance', 'digest', 'payload')),
  first   INTEGER NOT NULL,                    -- when it was first answered
  last    INTEGER NOT NULL,
  times   INTEGER NOT NULL,
  found   INTEGER NOT NULL,                    -- the most entries that one answer named
  PRIMARY KEY (file_id, server, kind)
) STRICT, WITHOUT ROWID;

ALTER TABLE lookups ADD COLUMN first INTEGER;                 -- when it was first asked, answered or not

ALTER TABLE identity_lookups ADD COLUMN first  INTEGER;
ALTER TABLE identity_lookups ADD COLUMN times  INTEGER NOT NULL DEFAULT 0; -- how often it was answered
ALTER TABLE identity_lookups ADD COLUMN unread INTEGER NOT NULL DEFAULT 0; -- entries that the last answer named and that have not been fetched
ALTER TABLE identity_lookups ADD COLUMN newest INTEGER NOT NULL DEFAULT 0; -- when the project's newest file was seen, as the schedule began

-- 1: the identities that the project has used are to be looked through again.
ALTER TABLE projects ADD COLUMN identities INTEGER NOT NULL DEFAULT 1;
CREATE INDEX projects_identities ON projects (id) WHERE identities = 1;

-- Entries that an answer about an identity named and that have been fetched. Most
-- of them concern no file, and would be fetched at each repetition.
CREATE TABLE identity_entries (
  server TEXT NOT NULL,
  id     BLOB NOT NULL,                        -- as named: tree id and leaf hash, or leaf hash alone
  PRIMARY KEY (server, id)
) STRICT, WITHOUT ROWID;

-- How the v1 servers answer.
CREATE TABLE lookup_servers (
  server   TEXT PRIMARY KEY,
  answered INTEGER,                            -- last
  failing  INTEGER,                            -- since then no question was answered; NULL: it answers
  error    TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

-- 1: judged, without the answer of a server that was waited for in vain.
ALTER TABLE unjudged ADD COLUMN early INTEGER NOT NULL DEFAULT 0;
-- One answer is for every project that has used the identity.
CREATE INDEX identity_lookups_named ON identity_lookups (server, identity) WHERE next IS NOT NULL;
