# The two commands: `make demo` and `make test`. Both set up .venv first; nothing else is needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test test-all lint setup clean

demo: setup
	$(BIN)/slimnet demo --out runs/demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-all: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "sweep or not sweep"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(STAMP)

# torch goes first: its pinned version decides which build of everything else is taken.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs
