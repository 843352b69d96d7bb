# make demo    the demo on http://127.0.0.1:7860, from nothing
# make test    the whole suite, from nothing
# make help    all that there is

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 7860
MODEL ?=

# Drawn knees and the model trained on them, for a machine that has nothing else.
PHANTOMS := runs/phantoms
PHANTOM_MODEL := runs/phantom

.PHONY: help demo test test-slow bench lint format browser clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.runtime $(if $(MODEL),,$(PHANTOM_MODEL)/config.json)  ## serve the demo (MODEL=folder or Hub id)
	$(BIN)/python app.py --host $(HOST) --port $(PORT) --model $(or $(MODEL),$(PHANTOM_MODEL))

test: $(VENV)/.dev browser  ## run the suite (minutes)
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev browser  ## run the tests that take long, too
	$(BIN)/python -m pytest -m "slow or not slow"

bench: $(VENV)/.runtime  ## measure (needs KOA_DATA and KOA_WEIGHTS)
	$(BIN)/python benchmarks/trunk_cache.py

lint: $(VENV)/.dev  ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.dev  ## mend style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:  ## remove the virtual environment and the phantom model
	rm -rf $(VENV) $(PHANTOMS) $(PHANTOMS)-release $(PHANTOM_MODEL)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@

# Debian's Chromium: Playwright drives it, and the browser tests skip with a reason where there is none.
browser:
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium fonts-dejavu-core; \
	fi

$(PHANTOMS)/README.md: | $(VENV)/.runtime
	rm -rf $(PHANTOMS)-release
	$(BIN)/python -m koa_hf.phantom $(PHANTOMS)-release --patients 300
	$(BIN)/python -m koa_hf.dataset build $(PHANTOMS)-release $(PHANTOMS) --overwrite
	rm -rf $(PHANTOMS)-release

$(PHANTOM_MODEL)/config.json: | $(PHANTOMS)/README.md
	@echo "No trained model is bundled yet: training the paper's stages on drawn knees, about three minutes."
	rm -rf $(PHANTOM_MODEL)
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	  train/run.py --recipe phantom --dataset $(PHANTOMS) --output-dir $(PHANTOM_MODEL)
