package main

import (
	"context"
	"errors"
	"os"

	"sigtrail/index"
)

// makeBeside is index.OpenBeside, which makes or migrates the database first if there
// is no monitor to do it.
func makeBeside(ctx context.Context, path string, o index.Options) (*index.Store, error) {
	s, err := index.OpenBeside(ctx, path, o)
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, index.ErrSchema) {
		return s, err
	}
	first, opening := index.Open(ctx, path, o)
	if errors.Is(opening, index.ErrInUse) {
		return nil, err
	}
	if opening != nil {
		return nil, opening
	}
	if err := first.Close(); err != nil {
		return nil, err
	}
	return index.OpenBeside(ctx, path, o)
}
