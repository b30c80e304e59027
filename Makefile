# The two words that a newcomer needs are `make demo` and `make test`; each sets up all that it needs.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test format lint types tests docs clean

demo: $(VENV)/installed
	$(BIN)/secateur demo

test: lint
	$(MAKE) --jobs=2 types tests

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

tests: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadgroup

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Most modules are never imported; Python compiles the others when they are.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) out build src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
