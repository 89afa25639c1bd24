# Coffer: `make run` starts a server, `make test` proves it.

GO     ?= go
TAGS   ?= pkcs11
BUILD   = $(GO) build -trimpath -tags $(TAGS) -ldflags "-s -w"
SOURCES = $(shell find cmd client internal -name '*.go' -not -name '*_test.go') go.mod go.sum

.PHONY: build run demo-cluster test check bench soak fuzz docs deps clean

build: bin/coffer

bin/coffer: $(SOURCES)
	$(BUILD) -o $@ ./cmd/coffer

# Starts a server with TLS on an embedded store in ./coffer-data, initialized
# and unsealed, and prints how to use it. Ctrl-C stops it; nothing is lost.
run: build
	bin/coffer quickstart -data ./coffer-data

# Three nodes over three etcd members on loopback; prints what to try. Ctrl-C
# stops them and removes ./coffer-demo.
demo-cluster: build
	@scripts/demo-cluster

# Everything: formatting, lint, floors, unit, property, crash and client tests
# with the race detector. Installs the Debian packages they need.
test: deps check
	$(GO) test -race -tags $(TAGS) -timeout 20m ./...

check:
	@test -z "$$(gofmt -l cmd client internal test)" || { echo "not formatted:"; gofmt -l cmd client internal test; exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(GO) tool staticcheck -tags $(TAGS) ./...

deps:
	@scripts/test-deps

# Prints the ratios that docs/performance.md explains. Not a test.
bench: build
	$(GO) run -tags $(TAGS) ./internal/bench

# Hours of crashes, power cuts and random histories.
soak: deps
	COFFER_SOAK=1 $(GO) test -tags $(TAGS) -timeout 6h -v -run 'Crash|Kill|Power|Linear|Soak|Tamper' ./...

# Each fuzz target for FUZZTIME.
FUZZTIME ?= 30s
fuzz:
	@scripts/fuzz $(FUZZTIME)

# The reference that is generated from the route tables.
docs:
	$(GO) run -tags $(TAGS) ./internal/docgen/generate docs/reference

clean:
	rm -rf bin
