# Every target sets up what it needs: a virtual environment in .venv, filled from constraints/.
#   make demo                     a run on simulated data, results in demo/
#   make test                     the fast tests (those on real cohorts too where OMICVAE_DATA names them)
#   make tutorials                runs the notebooks; minutes
#   make benchmarks-small         every benchmark at a reduced size, pages in build/benchmarks
#   make test PYTHON=python3.12   with another interpreter, when .venv does not exist yet

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --retries 10

# An existing environment decides the Python version, else the interpreter asked for.
PYTAG := $(shell { $(BIN)/python --version || $(PYTHON) --version; } 2>/dev/null | sed -n 's/^Python \([0-9]*\)\.\([0-9]*\).*/py\1\2/p')
CONSTRAINTS := $(wildcard constraints/$(PYTAG).txt)
# The name of the stamp changes with what is to be installed: an edited pin or dependency installs again, nothing else does.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml $(CONSTRAINTS) | cksum | cut -d ' ' -f 1)

.PHONY: help setup demo test test-all benchmarks-small lint docs tutorials tutorials-copy build clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,6p'
	@echo "targets: setup demo test test-all benchmarks-small lint docs tutorials build clean"

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "omicvae needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@$(if $(CONSTRAINTS),,echo "No constraints file for this Python: installing the newest versions that fit.")
	@echo "Setting up $(VENV): PyTorch and some 190 packages, a few minutes the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -qq pip==26.3
	$(PIP) install -qq $(CONSTRAINTS:%=-c %) torch
	$(PIP) install -qq $(CONSTRAINTS:%=-c %) $(CONSTRAINTS:%=--build-constraint %) --editable . --group test --group docs --group dev
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP)
	$(BIN)/omicvae demo --output demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2

benchmarks-small: $(STAMP)
	$(BIN)/python benchmarks/small.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

# Runs every notebook in a copy, so that those with outputs stay as they are committed; an error in a cell fails the target.
# (jupyter execute comes with myst-nb. Without ipywidgets tqdm warns that it cannot draw its bars.)
tutorials: $(patsubst tutorials/%.ipynb,run-%,$(wildcard tutorials/*.ipynb))

tutorials-copy: $(STAMP)
	rm -rf build/tutorials
	mkdir -p build/tutorials/docs
	cp -R tutorials build/tutorials/
	cp -R docs/developer build/tutorials/docs/

run-%: tutorials-copy
	cd build/tutorials/tutorials && PYTHONWARNINGS='ignore:IProgress not found' \
		"$(CURDIR)/$(BIN)/jupyter" execute --timeout=900 $*.ipynb

build: $(STAMP)
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf build demo dist docs/_build docs/api/generated .coverage htmlcov .mypy_cache .pytest_cache .ruff_cache
