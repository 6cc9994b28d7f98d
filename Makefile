# Everything that is done to trivet, by name. `make up` and `make test` are all
# that a new machine needs.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X trivet/cli.Version=$(VERSION)
GO      := CGO_ENABLED=0 go
# The race detector needs cgo.
RACE    := CGO_ENABLED=1 go test -race -shuffle=on
RING    := trivet/e2e

.PHONY: up build deps deps-test test test-unit test-lab lint format generate bench bench-balancer bench-database soak-database soak-wordpress clean

up: deps build ## install what is needed, build, start the lab
	./trivet up

build: ## build ./trivet
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o trivet .

deps:
	@scripts/deps

deps-test:
	@scripts/deps test

test: deps-test test-unit test-lab ## all tests

test-unit: ## pure, command line, kernel and process tests
	$(RACE) -timeout 10m $$(go list ./... | grep -v '^$(RING)$$')
	cd examples/foobar/app && $(RACE) ./...

test-lab: build ## three servers: kill, cut off, heal
	go test -count=1 -timeout 20m -v $(RING)

lint: ## unformatted files, lint findings
	go tool -modfile=tools/go.mod golangci-lint run

format: ## format all files
	go tool -modfile=tools/go.mod golangci-lint fmt

generate: ## write generated files anew
	go generate ./...

bench: build ## idle cost, bring-up and failover of a lab, as measured now
	go run ./e2e/bench

bench-balancer: ## the engine beside nginx, HAProxy, Caddy and net/http, in CPU for each request
	@scripts/deps bench
	$(GO) build -trimpath -o tmp/bench-balancer ./proxy/bench
	tmp/bench-balancer $(ARGS)

bench-database: build ## the database: router beside mariadbd's own socket, bring-up, joins, failover, memory
	$(GO) run ./e2e/dbbench $(ARGS)

soak-database: build ## random faults on the databases under load: ARGS="--for 1h --seed N", or "--trials ." or "--crashes 20"
	@scripts/deps soak
	$(GO) run ./e2e/soak $(ARGS)

soak-wordpress: build ## the single faults, with WordPress as the site
	@scripts/deps wordpress
	$(GO) run ./e2e/wordpress $(ARGS)

clean:
	rm -f trivet
