# `make demo` and `make test` do all their set-up themselves: a virtual environment in .venv from tested versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check format clean

help:
	@echo "make demo    the whole job on a real small model: no GPU, no Docker, no model hub"
	@echo "make test    every test that this machine can run"
	@echo "make check   formatting, lint, types, generated docs and tests: what CI runs"
	@echo "make format  format the code and the tests"
	@echo "make clean   remove what make made here; downloads stay in ~/.cache/trtk"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/trtk quickstart

test: $(STAMP)
	TRTK_TEST_CACHE=$${TRTK_TEST_CACHE:-$$PWD/.trtk/test-cache} $(BIN)/python -m pytest --numprocesses auto --max-worker-restart 0 --dist loadfile $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .trtk .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
