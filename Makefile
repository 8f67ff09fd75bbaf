# Two commands a newcomer needs: `make demo` and `make test`. Both make their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Runs with worker processes, that are killed, resumed and interrupted: apart from the rest, as signals and watched
# workers belong to a process.
RUNS = tests/training tests/data/test_loader.py
export NO_MKDOCS_2_WARNING = 1

.PHONY: help demo test lint types docs check clean
help:
	@echo "make demo   install, then search, train and evaluate on the synthetic set (about 6 minutes)"
	@echo "make test   install, then run all tests"
	@echo "make check  lint, types and the documentation build"

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,docs]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/occluded-reid demo --output demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile $(RUNS:%=--ignore=%)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(RUNS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy --strict occluded_reid

docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict --quiet

check: lint types docs

clean:
	rm -rf $(VENV) demo site build *.egg-info
