# One entry point. `make up` sets up and runs the platform; `make test` sets up and runs every test.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done
AGAIN = $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

.PHONY: help up down test soak check setup proto dashboards lock bench clean

help:  ## this text
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

up: setup  ## set up, start the whole platform and show it (Ctrl-C stops it)
	@$(BIN)/featurestore up

down:  ## stop what `featurestore up -d` started
	@$(BIN)/featurestore down

# Five at a time on real services, for which they often wait; then, with nothing beside it, what sees how fast and idle
# the platform is. What failed (1) has to pass by itself, and is shown both times.
ALONE := tests/e2e/test_platform.py
test: export PYTHONDONTWRITEBYTECODE =  # compiled once, not by each of the hundreds of processes that tests start
test: setup  ## set up and run every test
	@$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder --ignore $(ALONE) || { [ $$? = 1 ] && $(AGAIN); }
	@$(BIN)/python -m pytest $(ALONE) || { [ $$? = 1 ] && $(AGAIN); }

soak: setup  ## hours of faults: SOAK_S=3600 make soak
	@$(BIN)/python -m pytest --soak --timeout 0

bench: setup  ## every benchmark, one after the other: about an hour, with the machine left alone
	@$(BIN)/python -m benchmarks

check: setup  ## style, types, layers, generated code, lock file
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_generated.py

proto: setup  ## generate the protobuf code
	@$(BIN)/python tools/generate_protobuf.py

dashboards: setup  ## generate Grafana's dashboards
	@$(BIN)/python tools/generate_dashboards.py

lock:  ## resolve the requirements anew
	@$(BIN)/uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --no-strip-extras \
		--all-extras --python-version 3.11 --upgrade --quiet pyproject.toml -o requirements.lock

setup: $(SETUP)

$(SETUP): requirements.lock pyproject.toml tools/set_up
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/set_up
	@touch $@

clean:  ## remove the virtual environment and everything the platform kept (asks no question)
	@rm -rf $(VENV) .featurestore
