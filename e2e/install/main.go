// Command install builds the servers that the tests run against, once, into the
// cache folder. The tests do so themselves when it has not been run; here it
// takes no test's time.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"

	"sigtrail/e2e/servers"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := servers.Install(ctx, log.Printf); err != nil {
		log.Fatal(err)
	}
}
