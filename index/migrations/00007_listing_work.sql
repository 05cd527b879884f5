-- +goose Up
-- The projects of an index that are watched: those that were named, or each one that
-- the index has.
CREATE TABLE watched (
  index_id INTEGER NOT NULL REFERENCES indexes (id),
  project  TEXT    NOT NULL,                   -- PEP 503
  etag     TEXT    NOT NULL DEFAULT '',        -- of the newest listing stored; '': none was given
  asked    INTEGER NOT NULL DEFAULT 0,         -- when the listing was last asked for
  PRIMARY KEY (index_id, project)
) STRICT, WITHOUT ROWID;

-- The listings that are to be read. A row goes when a listing is stored that is as
-- new as its serial; watched projects without a row are known as they are.
CREATE TABLE listing_work (
  index_id INTEGER NOT NULL,
  project  TEXT    NOT NULL,
  serial   INTEGER NOT NULL,                   -- that the listing must have reached; 0: any will do
  removed  INTEGER NOT NULL DEFAULT 0,         -- 1: the journal's last word is that the project was deleted
  why      TEXT    NOT NULL CHECK (why IN ('journal', 'bootstrap', 'direct')),
  state    TEXT    NOT NULL CHECK (state IN ('due', 'stale', 'missing', 'refused', 'limited', 'failing', 'too-long')),
  tries    INTEGER NOT NULL DEFAULT 0,         -- since it was last due
  since    INTEGER NOT NULL,                   -- when it was first due
  next     INTEGER NOT NULL,                   -- when to ask
  error    TEXT    NOT NULL DEFAULT '',        -- of the last try
  PRIMARY KEY (index_id, project),
  FOREIGN KEY (index_id, project) REFERENCES watched (index_id, project) ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;
CREATE INDEX listing_work_next ON listing_work (index_id, why, next);

-- What else of an index is read once, piece by piece.
CREATE TABLE readings (
  index_id  INTEGER PRIMARY KEY REFERENCES indexes (id),
  census    INTEGER,                           -- when the list of all projects had been read whole; NULL: it has not
  past_from INTEGER,                           -- serial that the older journal is read from; NULL: it is not
  past_next INTEGER,                           -- serial up to where that has been done
  past_end  INTEGER                            -- serial where it ends
) STRICT;

-- Replaced by the tables above. Which listings were out of date is not carried over:
-- each watched project is read once more.
DELETE FROM settings WHERE key = 'pypi_progress';
