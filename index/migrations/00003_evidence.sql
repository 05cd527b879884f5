-- +goose Up
-- What evidence says besides the two notes: when each was first seen and who showed
-- it ('': the log), and what the proof was for, as JSON (monitor.Claim), if not for
-- the two heads. NULL: from before these columns.
ALTER TABLE contradictions ADD COLUMN ours_seen     INTEGER;
ALTER TABLE contradictions ADD COLUMN ours_source   TEXT NOT NULL DEFAULT '';
ALTER TABLE contradictions ADD COLUMN theirs_seen   INTEGER;
ALTER TABLE contradictions ADD COLUMN theirs_source TEXT NOT NULL DEFAULT '';
ALTER TABLE contradictions ADD COLUMN claim         TEXT;
