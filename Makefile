# Everything a person runs here. Needs make and Python 3.11 or newer; the rest is installed into .venv.
#   make setup       .venv with everything in it; quick when nothing changed
#   make demo        a worker, a long document, questions and answers
#   make check       format, lint, types, import contracts, tests
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.windowkv-installed
HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
PIP := $(BIN)/python -m pip --disable-pip-version-check
# One thread each: two OpenMP threads on a busy two-core machine are ten times slower than one.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
TEST_ARGS ?=

.PHONY: help setup proto fmt lint lint-proto types imports test test-gpu check bench eval compare-kvpress demo wheel clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP) ## Make .venv and install everything, nothing else

# torch goes first, so that nothing else chooses it. With a GPU its pin is left out: see constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no python3.11 or python3 on PATH" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(HAS_GPU),0)
	cp constraints.txt $(VENV)/constraints.txt
else
	sed '/gpu chooses itself: begin/,/gpu chooses itself: end/d' constraints.txt > $(VENV)/constraints.txt
endif
	$(PIP) install --quiet -c $(VENV)/constraints.txt torch
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e '.[dev]'
	touch $@

proto: setup ## Generate the stubs from the protos
	$(BIN)/python proto/generate.py

fmt: setup ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --exit-zero --quiet .

lint: setup ## Format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

lint-proto: setup ## Lint the protos; npm brings buf
	$(BIN)/python proto/lint.py

types: setup ## Strict types
	$(BIN)/mypy

imports: setup ## Who may import whom
	$(BIN)/lint-imports --no-cache

test: setup ## The whole suite; kernels run in Triton's interpreter
	$(ONE_THREAD) TRITON_INTERPRET=1 $(BIN)/python -m pytest -m 'not gpu' $(TEST_ARGS)

test-gpu: setup ## What needs an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu $(TEST_ARGS)

check: lint types imports test ## All that must hold before a merge

bench: setup ## The serving benchmark, as ratios; writes benchmarks/results
	$(ONE_THREAD) $(BIN)/python benchmarks/serving.py

# Reporting seeds, from 1000 on, are for tables only: defaults are chosen on the others.
EVAL_METHODS := windowkv windowkv-published snapkv pyramidkv keydiff kvzip quest expected-attention tova h2o pyramidinfer
EVAL_SUITES := single/2000 single/4000 niah reuse ruler/*/2000
EVAL_COMMON ?= $(foreach suite,$(EVAL_SUITES),--suite '$(suite)') --kept-ratio 0.12 --kept-ratio 0.06 --kept-ratio 0.03 \
	--seed 2028 --samples 4
EVAL_VISIBLE := windowkv windowkv@published windowkv-published snapkv pyramidkv keydiff
EVAL_VISIBLE_COMMON ?= --suite single/2000 --suite niah/2000 --suite reuse --suite 'ruler/*/2000' --kept-ratio 0.12 \
	--kept-ratio 0.06 --kept-ratio 0.03 --seed 2028 --samples 4

eval: setup ## The quality of answers on compressed caches; writes benchmarks/results/quality and quality-visible
	$(ONE_THREAD) $(BIN)/windowkv eval $(EVAL_COMMON) $(addprefix --method ,$(EVAL_METHODS)) --question hidden \
		--out benchmarks/results/quality --page benchmarks/results/QUALITY.md
	$(ONE_THREAD) $(BIN)/windowkv eval $(EVAL_VISIBLE_COMMON) $(addprefix --method ,$(EVAL_VISIBLE)) --question visible \
		--out benchmarks/results/quality-visible --page benchmarks/results/QUALITY-visible.md

# kvpress wants an older transformers than ours: an environment of its own, in which torch comes first, as above.
KVPRESS_VENV ?= .venv-kvpress
KVPRESS := $(KVPRESS_VENV)/.kvpress-installed

$(KVPRESS): | setup
	test -x $(KVPRESS_VENV)/bin/python || $(PYTHON) -m venv $(KVPRESS_VENV)
	grep '^torch==' $(VENV)/constraints.txt > $(KVPRESS_VENV)/constraints.txt || true
	$(KVPRESS_VENV)/bin/python -m pip install --quiet -c $(KVPRESS_VENV)/constraints.txt torch
	$(KVPRESS_VENV)/bin/python -m pip install --quiet -c $(KVPRESS_VENV)/constraints.txt kvpress==0.5.5
	touch $@

compare-kvpress: setup $(KVPRESS) ## Our token methods beside NVIDIA's kvpress; writes benchmarks/results/kvpress.md
	$(ONE_THREAD) $(BIN)/python benchmarks/compare_kvpress.py --kvpress-python $(KVPRESS_VENV)/bin/python

demo: setup ## A worker, a long document, questions and answers
	$(ONE_THREAD) $(BIN)/windowkv demo

wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## Remove what was made, .venv too
	rm -rf $(VENV) $(KVPRESS_VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
