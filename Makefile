# make demo     the demo on http://127.0.0.1:7860
# make test     the test suite
# make help     all targets
# Each installs what it needs into a virtual environment, .venv.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 7860
MODEL ?=
MINUTES ?= 10
# Two test files at a time; PYTEST_OPTIONS= for one.
PYTEST_OPTIONS ?= -n 2 --dist loadfile --no-loadscope-reorder
# Where a container sets this, every process of the suite would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-slow bench fuzz lint format browser clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.runtime  ## install into .venv, for training and the command line

demo: $(VENV)/.runtime  ## serve the demo (MODEL=folder or Hub id, HOST, PORT)
	$(BIN)/python app.py --host $(HOST) --port $(PORT) $(if $(MODEL),--model $(MODEL))

test: $(VENV)/.dev browser  ## run the test suite
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-slow: $(VENV)/.dev browser  ## run the slow tests too
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) -m "slow or not slow"

bench: $(VENV)/.bench  ## run the speed benchmarks (an hour; uses KOA_DATA, KOA_WEIGHTS)
	$(BIN)/python benchmarks/all.py

fuzz: $(VENV)/.dev  ## send hostile files for MINUTES=N through the reader and a running demo
	$(BIN)/python benchmarks/studies/fuzz.py --minutes $(MINUTES)

lint: $(VENV)/.dev  ## check style and import rules
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

format: $(VENV)/.dev  ## fix style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:  ## remove the virtual environment
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.bench: requirements-bench.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-bench.txt
	touch $@

# Debian's Chromium, driven by Playwright; without it the browser tests are skipped.
browser:
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium fonts-dejavu-core; \
	fi
