# The two commands: `make demo` and `make test`. Each sets up in .venv what it needs; nothing else has to be there.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# For two cores: many tests wait for processes of their own.
WORKERS ?= 3

.PHONY: demo test test-all fuzz lint size docs axe screenshots setup setup-dev clean

demo: setup
	$(BIN)/slimnet demo --out runs/demo

test: setup-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-all: setup-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "sweep or not sweep"

fuzz: setup-dev
	PYTHONPATH=tests/support nice $(BIN)/python -m fuzzing --count $(or $(COUNT),10000) --seed $(or $(SEED),0) --workers $(WORKERS)

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Megabytes of what slimnet brings, with and without its extras, and seconds of imports.
size: setup
	$(BIN)/python benchmarks/install_size.py --quick

# The documentation as a site, in build/site; a warning is an error. Open build/site/index.html.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The documentation is in build/site/index.html"

# Accessibility of reports and pages: axe-core from npm, in headless Chromium.
axe: $(VENV)/.installed-dev $(VENV)/.installed-docs
	npm install --silent --no-save --prefix build/axe axe-core@4
	$(BIN)/python -m pytest tests/report/test_accessibility.py

# The pictures of reports in docs/pictures, in headless Chromium: some minutes, for the short runs that they show.
screenshots: setup
	$(BIN)/python benchmarks/screenshots.py

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

# torch goes first: its pinned version decides which build of everything else is taken.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a few minutes, the first time"
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable ".[dev]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --editable ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) runs build/site
