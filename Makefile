# make demo    builds, starts a server and two agents, and deploys a real example to them
# make test    everything that a change must pass; installs what it needs
# make soak    the long tests; make bench and bench-agents the figures; make release the binaries, described for a feed
# make fuzz    ten minutes for all parsers; make fuzz FUZZ_SECONDS=3600 KEEP=1 an hour, and keep what is found

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

VERSION     ?= 2026.5.0-dev
COMMIT      := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
COMMIT_DATE := $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.commitDate=$(COMMIT_DATE)
GOBUILD     := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
TOOLS       := $(CURDIR)/bin/tools
GOFUMPT     := $(TOOLS)/gofumpt
LINTER      := $(TOOLS)/golangci-lint

.PHONY: build demo docs test unit race lint vet cross prerequisites tools soak soak-kills soak-stalls soak-states soak-delta soak-packages soak-clone soak-agents soak-upgrade soak-chaos soak-goals soak-releases soak-fuzz fuzz bench bench-agents vuln release clean

build:
	$(GOBUILD) -o bin/tako ./cmd/tako

demo: build
	./bin/tako demo

# The order is that of the quickest answer first.
test: prerequisites vet build cross unit race lint

vet:
	go vet ./...

# What a fresh Debian machine lacks: PostgreSQL's programs, a compiler for -race, systemd's check of units.
prerequisites:
	./scripts/prerequisites.sh

UNIT := TAKO_TEST_BINARY=$(CURDIR)/bin/tako go test -timeout 20m
# Journeys drive the built binary, so they run without the race detector. They mostly wait
# for other processes: by themselves and four at a time they keep two cores busy.
unit: build
	packages=$$(go list ./... | grep -vx 'github.com/takodeploy/tako/test'); $(UNIT) $$packages
	$(UNIT) -parallel 4 ./test

# The race detector makes the pure-Go SQLite thirty times slower: it goes over the
# packages whose concurrency is their own, at small sizes and on PostgreSQL.
RACE := ./internal/agent ./internal/deploy ./internal/tasks ./internal/orchestrator ./internal/octostache ./internal/variables ./internal/lifecycle ./internal/failpoint ./internal/blob ./internal/halibut/...
race:
	CGO_ENABLED=1 go test -race -short -parallel 8 -timeout 15m $(RACE)

lint: tools
	@files=$$($(GOFUMPT) -l cmd internal octopus examples test); if [ -n "$$files" ]; then echo "not formatted by gofumpt:"; echo "$$files"; exit 1; fi
	$(LINTER) run --timeout 15m ./...

# What is made of the table of routes; a test fails while it is stale.
docs:
	TAKO_UPDATE_DOCS=1 go test ./internal/app -run TestCompatibilityDocument -count=1

cross:
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go build -o /dev/null ./cmd/tako-agent
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go vet ./internal/agent/...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go build -o /dev/null ./cmd/tako-agent
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -o /dev/null ./cmd/tako

tools: $(GOFUMPT) $(LINTER)

$(GOFUMPT):
	GOBIN=$(TOOLS) go install mvdan.cc/gofumpt@v0.12.0

$(LINTER):
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# The long tests, a target each, which ends by itself within an hour.
SOAK := TAKO_TEST_SOAK=1 TAKO_TEST_BINARY=$(CURDIR)/bin/tako go test -count=1 -v
soak: soak-kills soak-stalls soak-states soak-delta soak-packages soak-clone soak-agents soak-upgrade soak-chaos soak-goals soak-releases soak-fuzz

soak-kills: build
	$(SOAK) -timeout 40m -skip TestKilledUpgrades -run 'TestPoint20|TestKill|TestPausedOwner|TestErrorAtEveryEdge|TestLateStart|TestLostCommits' ./test

# They mostly stand still.
soak-stalls: build
	$(SOAK) -timeout 15m -parallel 14 -run 'TestStallAtEveryEdge|TestCancelAtItsEdge' ./test

# A million steps of random deployments against a model of the rules.
soak-states:
	TAKO_TEST_SOAK=1 go test -timeout 58m -count=1 -v -run TestStateMachine ./internal/deploy | grep -v rapid

# Packages of 100 MB of which one per cent changes, pushed as deltas.
soak-delta:
	TAKO_TEST_SOAK=1 go test -timeout 20m -count=1 -v -run TestPoint24DeltaPush ./internal/rest/actions/packages

# Deployments of packages that are killed at random moments.
soak-packages:
	TAKO_TEST_SOAK=1 go test -timeout 30m -count=1 -v -run TestKillAtRandom ./internal/agent/install
	TAKO_TEST_SOAK=1 go test -timeout 30m -count=1 -v -run TestPackageRunnerIsKilled ./internal/orchestrator

# Ten minutes in which a test instance is provoked to speak, and says nothing.
soak-clone: build
	$(SOAK) -timeout 20m -run TestCloneIsSilent ./test

# Agents that are killed, cut off and lost during deployments, fifty times on each database.
soak-agents: build
	$(SOAK) -timeout 50m -run 'TestAgentFaults|TestRollout|TestAgentUpgrade' ./test

# Upgrades to versions that misbehave, and upgrades whose processes are killed at every edge,
# on each database; prints what was killed, what may come of it and what came.
soak-upgrade: build
	$(SOAK) -timeout 58m -run 'TestBadVersions|TestKilledUpgrades' ./test

# What can go wrong around an upgrade, row by row, on each database; prints fault, expectation and
# what was seen.
soak-chaos: build
	$(SOAK) -timeout 40m -run TestChaos ./test

# What upgrades are to reach, measured: no request fails, how long a switch, a whole upgrade
# and the way back take, a hundred deployments go on, versions that misbehave. Prints a table.
soak-goals: build
	$(SOAK) -timeout 58m -run TestUpgradeGoals ./test

# The last release's whole tests of the API, over the schema that these sources expand.
soak-releases: build
	$(SOAK) -timeout 58m -run 'TestTestsOfTheLastRelease|TestFromTheLastRelease|TestReleases' ./test

# Every Fuzz function of the module, found by itself; FUZZ_SECONDS in all.
FUZZ_SECONDS ?= 600
export FUZZ_SECONDS
fuzz:
	./scripts/fuzz.sh $(if $(KEEP),--keep)

soak-fuzz:
	FUZZ_SECONDS=2400 ./scripts/fuzz.sh $(if $(KEEP),--keep)

bench: build
	TAKO_TEST_BINARY=$(CURDIR)/bin/tako ./scripts/bench.sh

# A thousand agents, packages to twenty, and single calls and scripts.
bench-agents: build
	TAKO_TEST_BINARY=$(CURDIR)/bin/tako ./scripts/bench.sh 'Fleet|Transfer|Calls|Overhead'

vuln:
	go run golang.org/x/vuln/cmd/govulncheck@latest ./...

# Same source, same bytes: no paths, no build time, the commit's date. What dist/release.json
# says is put into a feed, and signed where the keys are, by `tako release feed`.
RELEASES := linux/amd64/tako linux/arm64/tako linux/amd64/tako-agent linux/arm64/tako-agent windows/amd64/tako-agent darwin/arm64/tako-agent
release:
	rm -rf dist && mkdir -p dist
	for r in $(RELEASES); do \
	  IFS=/ read -r os arch name <<<"$$r"; suffix=""; [ $$os = windows ] && suffix=.exe; \
	  GOOS=$$os GOARCH=$$arch $(GOBUILD) -o dist/$$name-$(VERSION)-$$os-$$arch$$suffix ./cmd/$$name; \
	done
	./dist/tako-$(VERSION)-linux-$$(go env GOHOSTARCH) release describe --dist dist --facts release.json
	cp install.sh dist/
	cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

clean:
	rm -rf bin dist
