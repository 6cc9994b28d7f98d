package main

import (
	"context"
	"errors"
)

// serveEngine is trivet's engine and nothing around it.
func serveEngine(ctx context.Context, args []string) error {
	return errors.New("not yet")
}
