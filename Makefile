# From a fresh clone, with Python 3.11 or newer and make: `make demo`, `make test`.
# Each target installs what it needs into .venv once, and again only when the packaging files change.

# The first of these that can make a virtual environment; 3.11 comes first, for which every
# dependency has a ready-made wheel. Choose another with `make demo PYTHON=python3.12`.
PYTHON ?= $(shell for p in python3.11 python3 python python3.12 python3.13; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$p"; break; }; done)
# Added to every install, for example a mirror: `make demo PIP_FLAGS="--find-links ~/wheels"`.
PIP_FLAGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install $(if $(CI),--quiet) --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)
PACKAGING := pyproject.toml constraints.txt

# A machine with a GPU brings its own Python with torch; nothing is installed there.
GPU_PYTHON ?= python3
MINUTES ?= 9
DATA ?= .work/data
OUT ?= .work/runs/flow

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint format typecheck bench train gpu-check gpu-train clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or newer with the modules venv and ensurepip, got \
	none on PATH; name one: make PYTHON=/path/to/python3.11 (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(PACKAGING) | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.test: $(PACKAGING) | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch $(VENV)/.core $@

$(VENV)/.dev: $(PACKAGING) | $(BIN)/python
	$(INSTALL) -e '.[test,dev]'
	@touch $(VENV)/.core $(VENV)/.test $@

demo: $(VENV)/.core  ## fly through two generated rooms; writes demo.mp4 and demo.png
	$(BIN)/sanawm demo $(ARGS)

test: $(VENV)/.test  ## run every test
	$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.test  ## measure speed on this machine
	$(BIN)/sanawm bench $(ARGS)

lint: $(VENV)/.dev  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## bring every file into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.dev  ## check types
	$(BIN)/pyright

clean:  ## remove build outputs and caches; the environment stays until `rm -r .venv`
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
