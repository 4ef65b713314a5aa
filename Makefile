# The commands of this project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
# KVM tests live in binaries named kvm_*; WEIR_SKIP_KVM=1 reports them as skipped.
ifeq ($(WEIR_SKIP_KVM),1)
NEXTEST_FILTER := -E 'not binary(/^kvm_/)'
endif

.PHONY: help deps deps-test demo build test lint test-unit test-guest test-svm soak bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

deps: ## install what a build needs (apt, with sudo where not root)
	@scripts/deps.sh build

deps-test:
	@scripts/deps.sh test

build: deps ## build the release binary, target/release/weir
	cargo build --release --locked

demo: build ## build, then serve examples/hello.toml on 127.0.0.1:8080 until Ctrl-C
	@scripts/demo.sh

test: deps-test lint test-guest test-unit test-svm ## everything: format, lints, unit, property, end-to-end and emulated-SVM tests

lint: deps ## rustfmt and clippy, warnings are errors
	cargo fmt --all --check
	cd guest && cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cd guest && cargo clippy --workspace --all-targets --locked -- -D warnings
	cd guest && RUSTFLAGS="$$(tr '\n' ' ' <image-flags.txt)" cargo clippy --release --locked --target x86_64-unknown-linux-gnu -p weir-libos -p hello -p probe -- -D warnings

test-unit: deps-test
ifeq ($(NEXTEST),)
	scripts/cargo-test.sh
else
	cargo nextest run --workspace --locked --no-fail-fast $(NEXTEST_FILTER)
endif

test-guest: deps
	cd guest && cargo test --locked --workspace

test-svm: deps-test ## the VMM's KVM tests once more, on emulated SVM and Debian's kernel
	scripts/test-svm.sh
	WEIR_SVM_NPT=0 scripts/test-svm.sh

soak: deps ## 100,000 starts and stops of a VM, which must leave nothing behind (some minutes; WEIR_SOAK_CYCLES)
	WEIR_SOAK_CYCLES=$${WEIR_SOAK_CYCLES:-100000} cargo test --release --locked -p weir-pool --test kvm_pool -- --nocapture cycles_leave_nothing_behind

bench: ## the measures of docs/BENCHMARKS.md
	@scripts/deps.sh bench
	cargo bench --locked -p weir -p weir-pool -p weir-proxy

clean: ## remove build products
	cargo clean
	cd guest && cargo clean
