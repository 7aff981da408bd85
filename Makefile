# `make` alone lists the targets. PYTHON=... chooses the interpreter that .venv is made with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(if $(CI),-q) -c constraints.txt
SOURCES := settings.ini setup.py pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test empty bare docs bench readme clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16

demo: $(VENV)/.run  ## real fMRI to a trained model and a report, in runs/demo
	$(BIN)/brainlm demo

test: $(VENV)/.dev  ## every check, notebook and test, and the site
	$(BIN)/python -m pytest

empty: $(VENV)/.dev  ## what reads data, in a clone with nothing beside it and no network
	$(BIN)/python tools/elsewhere.py empty

bare: $(VENV)/.dev  ## the wheel, installed into a bare environment (2 GB)
	$(BIN)/python tools/elsewhere.py bare

docs: $(VENV)/.dev  ## render the site into _docs
	$(BIN)/python tools/docs.py --strict

bench: $(VENV)/.run  ## speed and memory on this machine; ARGS='--only step' chooses
	$(BIN)/python tools/bench.py $(ARGS)

readme: $(VENV)/.dev  ## write README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

clean:  ## remove what was built, but not .venv and runs
	rm -rf _docs _proc _smalldocs build dist .pytest_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "brainlm needs Python 3.11 or newer, and '$(PYTHON)' is '`$(PYTHON) --version 2>&1`'. Say which one to use: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu its parts are in the package python3-venv."; exit 1; }

$(VENV)/.run: $(SOURCES) | $(VENV)/bin/python
	@echo "Installing into $(VENV): about 2 GB and a few minutes the first time."
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(INSTALL) -e '.[dev]'
	@touch $@
