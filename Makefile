# What a fresh Debian 12 or Ubuntu with a Rust toolchain needs is in `make demo` and `make test`.

CARGO ?= cargo
ARGS ?=

.PHONY: demo test fmt bench install-deps install-test-deps install-bench-deps

## A throw-away primary with two replicas, Causeway in front, mixed traffic. ARGS=--once ends by itself.
demo: install-deps
	$(CARGO) run --release -- demo $(ARGS)

## Everything: format, lints, docs, unit, property, tidy and integration tests.
test: install-test-deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --quiet
	$(CARGO) test

fmt:
	$(CARGO) fmt --all

## Micro benches, then the comparison with other proxies, which draws benches/compare.svg. ARGS='--only growth' and
## others: see `cargo bench --bench compare -- --help`.
bench: install-bench-deps
	$(CARGO) bench --bench scanner --bench path
	$(CARGO) bench --bench compare -- --picture benches/compare.svg $(ARGS)

## PostgreSQL and a C compiler from the distribution, where they are missing.
install-deps:
	@.ci/install

## The same, and the drivers that the tests run.
install-test-deps:
	@.ci/install --test

## The same as install-deps, and the proxies that the comparison is with.
install-bench-deps:
	@.ci/install --bench
