//go:build !stream

package main

import (
	"context"
	"errors"

	"sigtrail/monitor"
)

const noStream = "this monitor was built without event streams; build one with: go build -tags stream ./cmd/monitor"

func subscriptionProblem(string) string { return noStream }

func openSubscription(context.Context, string) (monitor.Subscription, error) {
	return nil, errors.New(noStream)
}
