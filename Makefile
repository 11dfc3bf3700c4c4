# Everything a person types in this repository. Needs a Rust toolchain, Python 3.10 or later, g++ and package registries;
# what else is needed goes into .venv* and target/, and nothing needs root.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PY := .venv/bin/python
LINT := .venv-lint/bin
INSTALL := $(PYTHON) -m devtools.install
# pytest workers. Two of them keep two cores busy; more would only make the timed tests wait for the compiling ones.
WORKERS ?= 2
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(or $(PILOTLIGHT_BIN),$(TARGET)/release/pilotlight)
# Extra arguments, for example: make demo ARGS=--json, make bench ARGS=--quick, make test-clients ARGS='-k redis_py'
ARGS ?=
# For make matrix: which torch, all of them unless told. KEEP=1 keeps their environments.
VERSIONS ?=
export KEEP

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: tools installed ## Compile real models cold, warm with stock Redis and warm with Pilotlight, in fresh processes
	@$(PY) -m demo.run $(ARGS)

.PHONY: test
test: test-rust test-fuzz test-python ## Run all tests: the Rust side, then real clients and real torch against the real server

.PHONY: test-rust
test-rust: ## Run the Rust tests and documentation examples
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked; \
		cargo test --doc --workspace --locked --quiet; \
	else \
		cargo test --workspace --locked; \
	fi; \
	echo "test-rust: $$SECONDS s, building included"

.PHONY: test-python
test-python: server tools venv-test clients native wheel ## Run the next three and test-deploy
	@$(PY) -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

.PHONY: test-clients
test-clients: server tools venv-test clients ## Run redis-py 5 to 8, redis-cli, ioredis, ccache, stock torch, crash and bound tests
	@$(PY) -m pytest tests/clients -n $(WORKERS) --dist loadgroup $(ARGS)

# How long make soak takes, a third of it for each of the three.
SECONDS ?= 600
.PHONY: soak
soak: server venv-test native ## Crash the store on a simulated medium, kill -9 the server, then leaders; SECONDS=600 says how long
	@export PILOTLIGHT_SOAK_SECONDS=$$(( $(SECONDS) / 3 )); \
	cargo test --release --locked --quiet -p pilotlight-store --test it -- --ignored --nocapture soak; \
	$(PY) -m pytest -s tests/clients/test_crash.py tests/native/test_leases.py tests/plugin/test_leader_kills.py $(ARGS)

.PHONY: test-fuzz
test-fuzz: ## Run each fuzz target for some seconds
	@$(PYTHON) -m devtools.fuzz --seconds 5

.PHONY: attacks
attacks: server venv-test native ## Attack a server of ours: poison, replay, oversize, desync, traverse, guess, exhaust; each must fail
	@PYTHONPATH=python $(PY) -m attacks $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz each target for SECONDS=600, and keep what reaches something new; ARGS='--targets envelope' narrows
	@$(PYTHON) -m devtools.fuzz --seconds $(SECONDS) --keep $(ARGS)

.PHONY: test-native
test-native: server tools venv-test native ## Run the Python module's tests against real servers; after make wheel, the wheel's too
	@$(PY) -m pytest tests/native -n $(WORKERS) --dist loadgroup $(ARGS)

.PHONY: test-plugin
test-plugin: server tools venv-test native ## Run the plug-in's tests with real torch and real g++
	@$(PY) -m pytest tests/plugin -n $(WORKERS) --dist loadgroup $(ARGS)

.PHONY: test-deploy
test-deploy: server venv-test ## Check what deploy/ holds with Helm, hadolint, systemd and Kubernetes' schemas, and the figures of the sizing guide
	@$(PY) -m pytest tests/deploy -n $(WORKERS) --dist loadgroup $(ARGS)

.PHONY: test-suites
test-suites: server ## Run what we claim to pass of the test suites of Redis and redis-py; fetches them
	@$(PYTHON) -m devtools.suites $(ARGS)

.PHONY: matrix
matrix: server native ## Try the plug-in with torch 2.6 to 2.15; VERSIONS=2.6,2.15 narrows, ARGS=--write writes docs/compatibility.md
	@$(PYTHON) -m devtools.matrix --versions "$(VERSIONS)" $(ARGS)

.PHONY: wheel
wheel: server venv-build ## Build the wheel: the Python package with its module, and the `pilotlight` command
	@install -D $(BIN) python/pilotlight.data/scripts/pilotlight
	@strip python/pilotlight.data/scripts/pilotlight 2>/dev/null || true
	@rm -f $(TARGET)/wheels/pilotlight-*.whl
	@[ -e $(TARGET)/release/lib_native.so ] || echo "building the Python module: some minutes, the first time" >&2
	@cd python && ../.venv-build/bin/maturin build --release --locked --quiet --out $(abspath $(TARGET))/wheels
	@ls $(TARGET)/wheels/pilotlight-*.whl

.PHONY: native
native: ## Build the Python module into python/pilotlight, for work on it
	@cargo build --release --locked --quiet -p pilotlight-python
# Renamed into place: written over, it would change under the processes that have it loaded, and end them.
	@cp $(firstword $(wildcard $(TARGET)/release/lib_native.so $(TARGET)/release/lib_native.dylib) $(TARGET)/release/lib_native.so) \
		$(TARGET)/release/_native.new
	@mv $(TARGET)/release/_native.new python/pilotlight/_native.abi3.so

# What a user has: the wheel, installed.
.PHONY: installed
installed: wheel venv
	@$(PY) -m pip install --quiet --force-reinstall --no-deps $(TARGET)/wheels/pilotlight-*.whl

.PHONY: bench
bench: server loadgen tools venv-test ## Measure the server beside redis-server, alternating; ARGS=--quick takes two minutes
	@$(PY) -m bench.run $(ARGS)

.PHONY: bench-torch
bench-torch: tools installed ## Measure the first call of compiled models, warm by cache; ARGS=--quick takes three minutes
	@$(PY) -m bench.torch.run $(ARGS)

.PHONY: bench-herd
bench-herd: server tools installed ## Measure processes that compile the same at once, with and without leases; ARGS=--quick takes ten minutes
	@$(PY) -m bench.herd.run $(ARGS)

.PHONY: bench-client
bench-client: server tools venv-test native ## Measure put and get of 1 MiB beside stock PyTorch's way; ARGS=--quick or --json
	@$(PY) -m bench.client $(ARGS)

.PHONY: bench-signing
bench-signing: server venv-test native ## Measure what signing and verifying add to a put and a get of 1 MiB; ARGS='--rounds 100' or --json
	@$(PY) -m bench.signing $(ARGS)

.PHONY: bench-eviction
bench-eviction: ## Simulate who leaves a full cache, beside LRU, SIEVE, S3-FIFO and GDSF; ARGS=--json or '--replay FILE'
	@cargo run --release --locked --quiet -p simulator -- $(ARGS)

.PHONY: bench-scale
bench-scale: ## Measure the store with a million entries, or ARGS='grow --entries 10000000', 'fill', 'churn'; needs disk space
	@cargo run --release --locked --quiet -p scale -- $(or $(ARGS),grow)

.PHONY: bench-compression
bench-compression: tools venv-test ## Measure what entries take: as put, recompressed, against siblings; real ones and recompiles of one model
	@cargo build --release --locked --quiet -p compression
	@$(PY) -m bench.compression

.PHONY: bench-sizing
bench-sizing: $(if $(findstring --measure,$(ARGS)),server) ## Simulate what fleets of 10 to 100,000 GPUs ask of a server; ARGS=--json, '--gpus 5000', --measure
	@$(PYTHON) -m bench.sizing $(ARGS)

.PHONY: lint
lint: venv-lint cargo-deny doc ## Check formatting, lints, dependencies and types
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	@$(PYTHON) -m devtools.dependencies
	$(LINT)/ruff format --check .
	$(LINT)/ruff check --quiet .
	$(LINT)/mypy

.PHONY: doc
doc: ## Build the Rust documentation, warnings being errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --all-features --quiet

.PHONY: fmt
fmt: venv-lint ## Format everything
	cargo fmt --all
	$(LINT)/ruff format .
	$(LINT)/ruff check --fix --quiet .

.PHONY: clean-venv
clean-venv: ## Remove the Python environments and fetched tools, but not the Rust build
	rm -rf .venv .venv-build .venv-lint target/tools target/redis-py target/node

.PHONY: server loadgen tools venv venv-test venv-build venv-lint clients cargo-deny
# Set PILOTLIGHT_BIN or LOADGEN_BIN to test another build.
server:
	@[ -n "$${PILOTLIGHT_BIN:-}" ] || { \
		[ -e $(TARGET)/release/pilotlight ] || echo "building the server: some minutes, the first time" >&2; \
		cargo build --release --locked --quiet -p pilotlight; \
	}

loadgen:
	@[ -n "$${LOADGEN_BIN:-}" ] || cargo build --release --locked --quiet -p loadgen

tools:
	@$(INSTALL) tools

venv:
	@$(INSTALL) venv .venv demo/requirements.txt

venv-test: venv
	@$(INSTALL) venv .venv tests/clients/requirements.txt
	@$(INSTALL) venv .venv tests/deploy/requirements.txt

venv-build:
	@$(INSTALL) venv .venv-build python/requirements-build.txt

venv-lint:
	@$(INSTALL) venv .venv-lint devtools/requirements-lint.txt

clients: venv
	@$(PY) -m devtools.install redis-py ioredis s3s-fs

cargo-deny:
	@$(INSTALL) cargo-deny
