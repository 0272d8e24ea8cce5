# Everything a developer does here, each in one word; `make` alone lists them.
PYTHON ?= python3
SEED_DIR ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMPS := $(patsubst %/package.json,%/node_modules/.installed,\
	$(wildcard tests/browser/package.json tests/client/real/package.json \
	tests/seed/package.json tests/typing/package.json))

NPM_QUIETLY := --no-audit --no-fund --no-update-notifier --loglevel=error

.DEFAULT_GOAL := help
.PHONY: help setup demo bench guard check fmt test test-seed node-modules clean

help:
	@echo 'make setup      .venv with the package (editable) and the tools that test and lint it'
	@echo 'make demo       a server to play with: ws://127.0.0.1:8000/ws, page http://127.0.0.1:8000/'
	@echo 'make check      ruff, mypy, pyright, import-linter: seconds'
	@echo 'make test       every test; ARGS="-k name" for some of them'
	@echo 'make test-seed  the tests against the seed: SEED_DIR=its folder'
	@echo 'make bench      the server against floors written in C: under ten minutes'
	@echo 'make guard      what its hot path costs, in instructions, beside the baseline: half a minute'
	@echo 'make fmt        format, and mend what ruff can mend'
	@echo 'make clean      remove what the others made'

setup: $(STAMP)

# Made anew when pyproject.toml is newer. pip: older ones do not know dependency groups.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'everwire needs Python 3.11 or newer: make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || scripts/system-packages python3-venv
	@echo "setup: installing everwire and its tools into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@
	@echo "setup: done; $(BIN)/everwire --help"

demo: setup
	@$(BIN)/everwire demo

check: setup tests/typing/node_modules/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	tests/typing/node_modules/.bin/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

bench: setup
	bench/run $(ARGS)

guard: setup
	@scripts/system-packages valgrind
	bench/guard/run $(ARGS)

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup node-modules
	@scripts/system-packages chromium valgrind
	$(BIN)/pytest $(ARGS)

test-seed: setup node-modules
	@test -d '$(SEED_DIR)' || { echo 'make test-seed SEED_DIR=<folder of the seed>'; exit 2; }
	@scripts/system-packages redis-server
	SEED_DIR='$(abspath $(SEED_DIR))' $(BIN)/pytest tests/seed $(ARGS)

node-modules: $(NODE_STAMPS)

# The lock file names versions and hashes; where they come from is npm's own setting.
%/node_modules/.installed: %/package.json
	@echo "setup: node modules of $*"
	@cd $* && if [ -f package-lock.json ]; then npm ci $(NPM_QUIETLY); \
		else npm install --no-package-lock $(NPM_QUIETLY); fi
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf tests/browser/node_modules tests/client/real/node_modules tests/seed/node_modules \
		tests/typing/node_modules
