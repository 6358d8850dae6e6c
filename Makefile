# `make repro`: the whole pipeline on a fresh machine. `make test`: the checks and the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro test quality style

# `dvc repro` alone does the same, one stage after the other; a CPU stage computes with one thread, so cells share cores.
JOBS ?= $(shell nproc)
EACH = $$(( ($$(dvc stage list --name-only | grep -c '^evaluate@') + $(JOBS) - 1) / $(JOBS) ))

repro: $(VENV)/requirements.installed
	dvc repro --glob 'calibrate*' 'evaluate-float@*'
	dvc stage list --name-only | grep '^evaluate@' | xargs -P $(JOBS) -n $(EACH) dvc --wait-for-lock repro
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
