# make lists the targets.

GO        ?= go
FUZZTIME  ?= 5s
DURATION  ?= 1h
STORE     ?= 1000000
PACKAGES  := ./...

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build both commands into bin/
	$(GO) build -o bin/ ./cmd/...

demo: ## play a compromise against an embedded lab: no network, under a minute
	@mkdir -p bin && $(GO) build -o bin/ ./cmd/... && bin/monitor demo $(DEMO)

test: ## run all tests with the race detector, real servers included
	$(GO) test -race -timeout 60m $(PACKAGES)
	cd e2e && $(GO) run ./install && $(GO) test -race -count=1 -timeout 60m ./...

unit: ## run the tests that need no real servers
	$(GO) test $(PACKAGES)

fuzz: ## run every fuzz target for FUZZTIME each
	@$(GO) list $(PACKAGES) | while read -r p; do \
	  $(GO) test -list '^Fuzz' $$p | grep '^Fuzz' | while read -r f; do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p </dev/null || exit 1; \
	  done || exit 1; \
	done

soak: ## run monitor for DURATION against all real servers while everything fails in turn
	cd e2e && $(GO) run ./install && $(GO) test -count=1 -timeout=0 -v -run '^TestSoak$$' . -soak $(DURATION) $(SOAK)

bench: ## measure the path from leaf to index: Go benchmarks, then a whole-process run
	$(GO) test -run '^$$' -bench . -benchmem ./index ./rekor ./monitor
	$(GO) run ./internal/bench $(BENCH)

load: ## play a day of PyPI, fifty times faster, to a monitor that watches all of it
	$(GO) run ./internal/bench -load $(LOAD)

bench-store: ## measure a generated database of STORE entries: bytes, history, look-ups
	$(GO) test -tags sqlite_dbstat -run '^$$' -bench '^BenchmarkStore$$' -timeout 0 ./index -store.entries $(STORE) $(BENCH)

clean: ## remove what was built
	rm -rf bin

.PHONY: help build demo test unit fuzz soak bench load bench-store clean
