# Everything that a checkout can do. `make` alone lists it.
#
# PYTHON is the interpreter that environments are made from; all else lands in .venv, which can be
# deleted at any time.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
# Options of the benchmark; other ones write to benchmarks/output unless they say where.
BENCH ?= --output docs
# How long to fuzz.
SECONDS ?= 60
IMAGE ?= poolgrad
ENGINE ?= $(shell command -v docker || command -v podman)

BIN = .venv/bin
SOURCES = pyproject.toml setup.py \
	$(wildcard pyx/poolgrad/*.pyx pyx/poolgrad/*.px[di] service/poolgrad_service/*.pyx)

.PHONY: help run test test-baseline test-debug test-torch test-clients fuzz bench bench-service \
	numbers instructions format check image image-run clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The kernels are built once, and anew when what they are made of changes; then, one stamp an extra,
# what that needs besides.
.venv/build.stamp: $(SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Building: the first time, this takes some minutes."
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/%.stamp: .venv/build.stamp
	$(BIN)/python -m pip install --quiet 'poolgrad[$*]'
	@touch $@

run: .venv/service.stamp ## Build, and serve on 127.0.0.1:8000.
	@$(BIN)/poolgrad serve --host $(HOST) --port $(PORT)

test: .venv/test.stamp ## Run the tests.
	$(BIN)/python -m pytest

test-baseline: .venv/test.stamp ## Run the library's tests on the kernels for any CPU.
	POOLGRAD_ISA=baseline $(BIN)/python -m pytest -m 'not slow' tests/library

test-torch: .venv/test.stamp .venv/torch.stamp ## Compare with PyTorch, which this installs.
	$(BIN)/python -m pytest -m torch

test-clients: .venv/test.stamp .venv/clients.stamp ## Ask the service by other projects' clients.
	$(BIN)/python -m pytest -m clients

# A build in an environment of its own, so that it never takes the place of the fast one.
.venv-debug/stamp: $(SOURCES) $(wildcard pyx/poolgrad/*.py service/poolgrad_service/*.py)
	@test -x .venv-debug/bin/python || $(PYTHON) -m venv .venv-debug
	POOLGRAD_DEBUG=1 .venv-debug/bin/python -m pip install --quiet '.[test]'
	@touch $@

# An allocation that cannot be had is no error, and reports go past pytest's capture. The sanitizer's
# own malloc, unlike the C library's, may hang in a child forked while another thread is in it.
test-debug: .venv-debug/stamp ## Run tests with the memory accesses of kernels and codec checked.
	LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 HYPOTHESIS_PROFILE=debug \
		.venv-debug/bin/python -m pytest -m 'not slow' --capture=sys tests/library \
		tests/service/test_json.py tests/service/test_codec.py \
		--deselect tests/library/test_threads.py::test_children_forked_under_load_can_pool

fuzz: .venv/fuzz.stamp ## Fuzz the JSON reader for a minute.
	@mkdir -p .fuzz
	$(BIN)/python tests/fuzz/reader.py -max_total_time=$(SECONDS) -max_len=256 -timeout=10 \
		-artifact_prefix=.fuzz/ .fuzz tests/fuzz/corpus

# Peers are large and pinned, so they have an environment of their own, too.
.venv-bench/stamp: $(SOURCES) $(wildcard pyx/poolgrad/*.py)
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet '.[bench]'
	@touch $@

bench: .venv-bench/stamp ## Compare with other libraries, which this installs; writes docs/benchmarks.*.
	.venv-bench/bin/python -m benchmarks $(BENCH)

bench-service: .venv/bench-service.stamp ## Compare with other servers, which this installs.
	$(BIN)/python -m benchmarks.service $(BENCH)

numbers: .venv/numbers.stamp ## Compare reading and writing JSON's numbers with other libraries.
	$(BIN)/python -m benchmarks.numbers

instructions: .venv/test.stamp ## Compare instruction counts with those kept; needs valgrind.
	$(BIN)/python -m benchmarks.instructions

format: .venv/dev.stamp ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: .venv/dev.stamp ## Check format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PATH=$(BIN):$$PATH cython-lint pyx service  # it looks for pycodestyle there
	$(BIN)/mypy pyx/poolgrad service/poolgrad_service examples benchmarks

image: ## Build the container image.
	@test -n "$(ENGINE)" || { echo 'make image needs docker or podman' >&2; exit 1; }
	$(ENGINE) build --tag $(IMAGE) .

image-run: ## Run the image on 127.0.0.1:8000, read-only.
	@test -n "$(ENGINE)" || { echo 'make image-run needs docker or podman' >&2; exit 1; }
	$(ENGINE) run --rm --read-only --publish $(HOST):$(PORT):8000 $(IMAGE)

clean: ## Remove what the other targets made.
	rm -rf .venv .venv-debug .venv-bench .venv-peers .fuzz benchmarks/output build dist \
		*.egg-info pyx/*.egg-info service/*.egg-info \
		pyx/poolgrad/*.so pyx/poolgrad/*.c pyx/poolgrad/*.html \
		service/poolgrad_service/*.so service/poolgrad_service/*.cpp service/poolgrad_service/*.html \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
	find pyx service tests examples benchmarks -name __pycache__ -type d -exec rm -rf {} +
