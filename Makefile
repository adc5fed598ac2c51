# SPDX-License-Identifier: Apache-2.0
# make setup | demo | test | test-all | targets | report | lint | clean
#
# CHECKPOINT=PATH   model of the demo: a Hugging Face folder or a llama2.c file (default: adder)
# PROMPT=TEXT       what that model continues or embeds (default: Once upon a time)
# PRESET=NAME       accelerator of the demo (default: small)
# SIMULATOR=NAME    verilator (default) or icarus
# PYTHON=PROGRAM    Python that makes the environment (default: python3)

PYTHON ?= python3
PRESET ?= small
SIMULATOR ?= verilator
TARGET ?= ecp5
PROMPT ?= Once upon a time
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The model that comes with afternorm adds two numbers.
CHECKPOINT ?= adder
SUMS := 27+48 99+99 5+7 0+0 38+64 81+19 12+90 46+54 73+8 60+41 9+92 55+55 33+77 10+1 86+67 24+25
INPUT = $(if $(filter adder,$(CHECKPOINT)),$(SUMS:%=--prompt %=),--prompt "$(PROMPT)")

# A test file builds its simulations once: keep a file's tests in one worker.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all targets report lint format clean
.DELETE_ON_ERROR:

help:
	@sed -n '2,8s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "afternorm needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@for tool in g++ make perl; do command -v $$tool >/dev/null || \
	  { echo "$$tool is missing, which Verilator needs: apt-get install g++ make perl" >&2; exit 2; }; done
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make a virtual environment: apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/afternorm run "$(CHECKPOINT)" $(INPUT) --preset $(PRESET) --schedule all \
	  --simulator $(SIMULATOR)
	$(BIN)/afternorm report --preset $(PRESET) --target $(TARGET)

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-all: $(STAMP)
	$(PYTEST)

# Cycles of products, norms and attention under all schedules, as the tests assert them.
targets: $(STAMP)
	$(BIN)/python -m pytest tests/system/test_targets.py -q -rP

# docs/resources.md: all presets; what is finished is kept, and goes on from there.
report: $(STAMP)
	nice $(BIN)/python scripts/resources.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
