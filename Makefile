# What a fresh Debian 12 or Ubuntu with a Rust toolchain needs is in `make demo` and `make test`.

CARGO ?= cargo
ARGS ?=
CHAOS_CELLS ?= *
CHAOS_SEED ?= 1

.PHONY: demo test chaos fmt release bench overload hotpath record-hotpath fuzz install-deps install-test-deps install-bench-deps \
	install-fuzz-deps

## A throw-away primary with two replicas, Causeway in front, mixed traffic. ARGS=--once ends by itself.
demo: install-deps
	$(CARGO) run --release -- demo $(ARGS)

## Everything: format, lints, docs, unit, property, tidy and integration tests, and what a query costs.
test: install-test-deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --quiet
	$(CARGO) test
	$(CARGO) build --release
	$(CARGO) test --test hotpath -- --ignored --exact guard

## Every fault at every node in every state of a client, and what became of it: target/chaos.md.
## CHAOS_CELLS='primary/kill/commit,replica/*/queue' runs some; CHAOS_SEED=7 strikes at other times.
chaos: install-test-deps
	rm -f target/chaos.md
	CHAOS_CELLS='$(CHAOS_CELLS)' CHAOS_SEED='$(CHAOS_SEED)' CHAOS_TABLE='$(CURDIR)/target/chaos.md' \
		$(CARGO) test --test integration -- --test-threads 1 chaos::

fmt:
	$(CARGO) fmt --all

## target/pgo/causeway: the binary to deploy, optimised by a profile of itself under load. Takes some minutes.
release: install-deps
	CARGO=$(CARGO) benches/pgo.sh

## Micro benches, then the comparison of target/pgo/causeway with other proxies, which draws benches/compare.svg.
## ARGS='--only growth' and others: see `cargo bench --bench compare -- --help`.
bench: install-bench-deps release
	$(CARGO) bench --bench scanner --bench path
	CAUSEWAY_BINARY=$(CURDIR)/target/pgo/causeway $(CARGO) bench --bench compare -- --picture benches/compare.svg $(ARGS)

## 10,000 clients over a pool of 20 for half a minute, then beside 1,000 connections that only take up room: how long
## they wait, whether each gets its share, and what memory the proxy takes.
overload: install-test-deps
	$(CARGO) build --release
	CAUSEWAY_TEST_CLIENTS=10000 CAUSEWAY_BINARY=$(CURDIR)/target/release/causeway \
		$(CARGO) test --test integration -- overload::few_servers

## Instructions, allocations, system calls and switches per query, ours and, where it is installed, PgBouncer's.
hotpath: install-test-deps
	$(CARGO) build --release
	$(CARGO) test --test hotpath -- --ignored --exact compare

## Writes what a query costs now to tests/hotpath/recorded.toml, which `make test` holds later costs against.
record-hotpath: install-test-deps
	$(CARGO) build --release
	CAUSEWAY_RECORD_HOTPATH=1 $(CARGO) test --test hotpath -- --ignored --exact guard

## Looks for bytes that break a promise, FUZZ_SECONDS for each target (600), or for those in ARGS. `make test` tries
## those that were found before.
fuzz: install-fuzz-deps
	tests/fuzz/run.sh $(ARGS)

## PostgreSQL and a C compiler from the distribution, where they are missing.
install-deps:
	@.ci/install

## The same, the drivers that the tests run, and the instruments that they measure with.
install-test-deps:
	@.ci/install --test

## The same as install-deps, and the proxies that the comparison is with.
install-bench-deps:
	@.ci/install --bench

## The same as install-deps, a nightly toolchain, and cargo-fuzz in target/fuzz/tools.
install-fuzz-deps:
	@.ci/install --fuzz
