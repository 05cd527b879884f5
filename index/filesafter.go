package index

import "context"

// FilesAfter returns a page of all files in the order of their ids, which is by project:
// those behind one, 0 being before all of them.
func (s *Store) FilesAfter(ctx context.Context, id FileID, limit int) ([]File, error) {
	var files []File
	err := s.each(ctx, `SELECT `+fileColumns+` FROM files f JOIN projects p ON p.id = f.project_id WHERE f.id > ? ORDER BY f.id LIMIT ?`, []any{int64(id), limit}, appendFile(&files))
	if err != nil {
		return nil, s.fail("reading new files", err)
	}
	return files, nil
}
