-- +goose Up
-- When a certificate begins, by the authority's clock; NULL: not readable.
ALTER TABLE signers ADD COLUMN not_before INTEGER;
CREATE INDEX signers_by_age ON signers (publisher_id, not_before);
DROP INDEX signers_by_publisher;

-- Since when, and until when, a publisher has signed files of a project: trusted
-- certificates only, on evidence that no third party can make up. Filled by
-- migration 12 for what is older, since it takes reading certificates.
CREATE TABLE project_publishers (
  project_id   INTEGER NOT NULL REFERENCES projects (id),
  publisher_id INTEGER NOT NULL REFERENCES publishers (id),
  signed_first INTEGER NOT NULL,               -- begin of the first and of the last certificate, the authority's clock
  signed_last  INTEGER NOT NULL,
  seen_first   INTEGER NOT NULL,               -- when we first and last indexed such an entry, our clock
  seen_last    INTEGER NOT NULL,
  PRIMARY KEY (project_id, publisher_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX project_publishers_by_publisher ON project_publishers (publisher_id);
