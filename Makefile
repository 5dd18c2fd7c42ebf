# Every target works from a fresh clone with Python 3.11+ and make; `make setup` is what the others call first.
#   make demo PORT=9000        make setup PYTHON=python3.12        make test ARGS="-x -k resume"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cluster test test-foreign soak bench lint format clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$name; break; fi; done)
PORT ?= 8000
WORKERS ?= 2
ARGS ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(STAMP) ## .venv with everything; again when pyproject.toml or constraints.txt change

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is wanted: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi
	@if [ ! -x $(BIN)/python ]; then echo "Making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## the chat at 127.0.0.1:PORT (8000): cut it, reload it, stop it
	@exec $(BIN)/python -m examples.chat.serve --port $(PORT) $(ARGS)

demo-cluster: setup ## the same on two workers and a Redis: restart one in the middle of an answer
	@exec $(BIN)/python -m examples.cluster.serve --port $(PORT) $(ARGS)

test: setup ## every test but the soak, in WORKERS (2) at once
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-foreign: setup ## Starlette's, FastAPI's, sse-starlette's and Channels' own tests, bare and wrapped
	$(BIN)/python tests/foreign/run.py $(ARGS)

soak: setup ## the long runs: 10,000 cuts, 10,000 dropped streams, 1 GiB, 500 streams through rolling restarts
	$(BIN)/python -m pytest -m soak --timeout 1800 $(ARGS)

bench: setup ## cost against the bare app and the peer, into benchmarks/results/
	$(BIN)/python -m benchmarks $(ARGS)

lint: setup ## ruff, mypy, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## everything that can be made again
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .foreign build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
