# Two commands do everything on a fresh machine with Python 3.11: `make quickstart` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# DeepSpeed builds nothing ahead of time: its CUDA operators are compiled when a GPU run first needs them.
export DS_BUILD_OPS = 0
OUT ?= quickstart
WORKERS ?= 2
SITE ?= build/site
# A worker has whole files, whose fixtures are dear, in the order that tests/conftest.py gives them.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help install quickstart smollm2 test test-fast bench gpu golden golden-record lint format docs wheel-check clean

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## create the environment in .venv and install ogpsa into it

# torch comes first and without build isolation, because building DeepSpeed imports it.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev,docs,eval,gguf]'
	@touch $@

quickstart: install  ## run the whole chain on the embedded testbed, into ./quickstart
	$(BIN)/ogpsa quickstart --out $(OUT)

smollm2: install  ## a real model of 135 M parameters on two cores, into runs/smollm2 (an hour)
	$(BIN)/ogpsa run smollm2

test: install  ## all tests that need no GPU (with a GPU: those too)
	$(PYTEST) tests

test-fast: install  ## unit, reference and command-line tests only
	$(PYTEST) -m "not distributed and not slow" tests

bench: install  ## all benchmarks in one table, with what became worse since the last kept one (an hour and a half)
	$(BIN)/python -m benchmarks.bench

gpu: install  ## on a machine with a GPU: what must hold there, and what it costs there (ten minutes)
	$(BIN)/python -m benchmarks.bench.gpu

golden: install  ## compare what the tool does with the golden record (minutes)
	$(BIN)/python -m tests.golden compare

golden-record: install  ## make the golden record anew, after a change that is meant
	$(BIN)/python -m tests.golden record

lint: install  ## style, formatting and types, and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint containers/Dockerfile

format: install  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install  ## build the pages in docs/ as a site, strictly, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(SITE)

# The wheel is built from what git has, so that no earlier build's leftovers are in it.
wheel-check:  ## the wheel with all that it needs in an empty environment, and the quickstart from it (some minutes)
	PYTHON=$(PYTHON) tests/project/wheel_check.sh

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
