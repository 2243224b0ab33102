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

# What training reads and writes: encoded episodes in DATA/train and DATA/val, the folder of the tokenizer
# that encoded them, the configuration of the world model. A run that finds snapshots in OUT continues from the
# newest one. After MINUTES it saves, validates, exports to OUT/export and ends.
DATA ?= data/latents
TOKENIZER ?= runs/tokenizer/export
WORLD ?= world_model/assets/nano/config.json
OUT ?= runs/$(STAGE)
MINUTES ?= 9
# What is trained: flow, or adversarial, which sharpens what flow has made (docs/training.md).
STAGE ?= flow
RECIPE ?= world_model/train/recipes/$(STAGE).json
# Further settings of the recipe, for example SET="run.batch=16 run.init=runs/earlier/snapshots/step_00001000".
SET ?=

# A machine with a GPU brings its own Python with torch; nothing is installed there.
GPU_PYTHON ?= python3

# $(1) the Python, $(2) settings of the machine. `timeout` reports 124 where it had to end the run, which is its job.
define train_world
	@test -f "$(RECIPE)" || { echo "STAGE: expected flow or adversarial, or a RECIPE for it, got $(STAGE)" >&2; exit 1; }
	mkdir -p "$(OUT)"
	$(1) .ci/configure.py $(RECIPE) run.out="$(OUT)" world="$(WORLD)" tokenizer="$(TOKENIZER)" \
		data="$(DATA)/train" validation="$(DATA)/val" $(2) $(SET) > "$(OUT)/$(STAGE).json"
	timeout --signal=TERM $(MINUTES)m $(1) -m world_model.train $(STAGE) --config "$(OUT)/$(STAGE).json" || test $$? -eq 124
endef

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-matrix lint format typecheck bench train train-tiny gpu-check gpu-train clean

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

test-matrix: $(VENV)/.dev  ## each learner with pins of its own, and Gymnasium's oldest and newest; minutes each
	$(BIN)/nox $(ARGS)

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

train: $(VENV)/.core  ## train or continue the world model on this machine's CPU for MINUTES
	$(call train_world,$(BIN)/python,run.device=cpu run.dtype=float32 run.threads=1 run.batch=8)

# Every stage of training, on a few rooms: the shortest proof that all of them work together.
TINY := world_model/train/recipes/tiny
STAGES := bidirectional chunk_causal streaming

train-tiny: $(VENV)/.test  ## all stages of training on ten rooms, minutes in all; the result plays but knows nothing
	$(BIN)/sanawm data --out runs/tiny/data --episodes 10 --split train --frames 33
	$(BIN)/sanawm data --out runs/tiny/data --episodes 4 --split val --frames 33
	$(BIN)/python -m world_model.train tokenizer --config $(TINY)/tokenizer.json
	$(BIN)/python -m world_model.train latents --config $(TINY)/latents.json
	$(BIN)/python -m world_model.train latents --config $(TINY)/latents.json \
		--data runs/tiny/data/val --out runs/tiny/latents/val --no-augment
	for stage in $(STAGES); do \
		$(BIN)/python -m world_model.train flow --config $(TINY)/$$stage.json || exit 1; done
	for stage in trajectories ode self_forcing; do \
		$(BIN)/python -m world_model.train $$stage --config $(TINY)/$$stage.json || exit 1; done
	$(BIN)/python -m world_model.train pairs --config $(TINY)/pairs.json
	$(BIN)/python -m world_model.train pairs --config $(TINY)/pairs.json \
		--data runs/tiny/latents/val --out runs/tiny/pairs/val --count 4
	for stage in judge adversarial decoder refiner; do \
		$(BIN)/python -m world_model.train $$stage --config $(TINY)/$$stage.json || exit 1; done
	$(BIN)/python examples/random_agent.py --model runs/tiny/refiner/export

gpu-train:  ## the same on a GPU, with GPU_PYTHON's own torch
	$(call train_world,$(GPU_PYTHON),run.device=cuda run.dtype=bfloat16)

gpu-check:  ## on a GPU: compare with the CPU, then measure speed; GPU_PYTHON needs no pytest
	@for check in tests/*/test_cuda.py; do echo "$$check"; PYTHONPATH=. $(GPU_PYTHON) "$$check" -v || exit 1; done
	$(GPU_PYTHON) -m world_model.bench --device cuda $(ARGS)

clean:  ## remove build outputs and caches; the environment stays until `rm -r .venv`
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
