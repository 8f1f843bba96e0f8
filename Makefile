# make setup   a virtual environment in .venv with the core and all plugins, editable
# make demo    the main job, start to finish, on the embedded corpus
# make docs    the documentation site, in build/docs/site
# make dist    the sdists and wheels of all distributions, in dist; TAG=v0.2.0: as that release
# make test    lint, types and tests, WORKERS of them at a time; test-slow, test-faults and test-large
#              run what takes longer, test-lowest the tests at the lower end of every requirement
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
DONE := .venv/.set-up
PLUGINS := $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/*/pyproject.toml)))
EDITABLE := --editable '.[dev]' $(addprefix --editable ./,$(PLUGINS))

.PHONY: setup demo test test-slow test-faults test-large test-lowest lint docs dist clean
.DELETE_ON_ERROR:

setup: $(DONE)

# DeepSpeed comes as source and is built here, as our own distributions are: all with one setuptools,
# which the pins hold for, instead of one installed anew for each of them.  To compile every module
# that comes along would take a minute; Python compiles the few that are imported.
$(DONE): export PIP_CONSTRAINT := constraints.txt
$(DONE): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(DONE): constraints.txt pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS))
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(None if ok else f"error: $(PYTHON) is Python {v}; xlm-plugins needs 3.11, 3.12 or 3.13\n  hint: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet setuptools wheel
	$(BIN)/python -m pip install --quiet --no-compile --no-build-isolation $(EDITABLE)
	@touch $@

demo: setup
	$(BIN)/xlm demo

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .github

# One thread per worker: more would compete for the same cores.  The other targets run one test at a
# time, for some of theirs measure time or memory.
test: export OMP_NUM_THREADS := 1
test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m 'not slow and not faults and not large'

test-slow: lint
	$(BIN)/python -m pytest -m slow

test-faults: lint
	$(BIN)/python -m pytest -m faults

test-large: lint
	$(BIN)/python -m pytest -m large

# In an environment of its own.  torch's lower end is only resolved, the newest tested one runs.
LOWEST := .venv-lowest/bin/python -m pip install --constraint constraints-lowest.txt
test-lowest: export PIP_BUILD_CONSTRAINT := constraints.txt
test-lowest: lint
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST) --quiet --dry-run --ignore-installed torch==2.10.0 $(EDITABLE)
	$(LOWEST) --quiet torch==$(shell sed -n 's/^torch==//p' constraints.txt) $(EDITABLE)
	.venv-lowest/bin/python -m pytest -m 'not slow and not faults and not large'

# The site, in build/docs/site; a dead link or a page that is not in the menu fails the build.
docs: setup
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement docs/requirements.txt
	$(BIN)/python tools/documentation.py build/docs
	cd build/docs && ../../.venv-docs/bin/zensical build --strict

dist: setup
	$(BIN)/python tools/distributions.py $(TAG:%=--release %)
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf dist .venv .venv-lowest .venv-docs .mypy_cache .ruff_cache .pytest_cache build
	find . \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
