# `make repro`: the whole pipeline on a fresh machine. `make test`: the checks and the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro test quality style

repro: $(VENV)/requirements.installed
	dvc repro

test: $(VENV)/requirements-dev.installed
	$(MAKE) quality
	pytest

quality: $(VENV)/requirements-dev.installed
	ruff format --check .
	ruff check .
	mypy
	codespell

style: $(VENV)/requirements-dev.installed
	ruff format .
	ruff check --fix .

$(VENV)/%.installed: %.txt requirements.txt | $(VENV)
	python -m pip install --quiet -r $<
	touch $@

$(VENV):
	$(PYTHON) -m venv $(VENV)
