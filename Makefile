# `make repro`: the whole pipeline on a fresh machine. `make test`: the checks and the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro test quality style

# `dvc repro` alone does the same, one stage after the other. A CPU stage computes with one thread, so cells share the
# cores; `--single-item` keeps two of them from locking the stages that they have in common.
JOBS ?= $(shell nproc)
CELLS = dvc stage list --name-only | grep -E '^(reconstruct|evaluate)@' | sort -t@ -k2,2 -k1,1r

repro: $(VENV)/requirements.installed
	dvc repro --glob 'calibrate*' 'treat*' 'distil*' 'evaluate-float@*'
	$(CELLS) | xargs -P $(JOBS) -n $$(( 2 * (($$($(CELLS) | wc -l) / 2 + $(JOBS) - 1) / $(JOBS)) )) \
		dvc --wait-for-lock repro --single-item
	dvc stage list --name-only | grep '^study' | xargs -r -P $(JOBS) -n 1 dvc --wait-for-lock repro --single-item
	dvc repro

test: $(VENV)/requirements-dev.installed
	$(MAKE) quality
	OMP_NUM_THREADS=1 pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

KERNELS = $(wildcard pipeline_lib/fakequant/csrc/* tests/fakequant/*.cpp)

quality: $(VENV)/requirements-dev.installed
	ruff format --check .
	ruff check .
	clang-format --dry-run -Werror $(KERNELS)
	mypy
	codespell

style: $(VENV)/requirements-dev.installed
	ruff format .
	ruff check --fix .
	clang-format -i $(KERNELS)

$(VENV)/%.installed: %.txt requirements.txt requirements-ray.txt | $(VENV)
	python -m pip install --quiet -r $<
	touch $@

$(VENV):
	$(PYTHON) -m venv $(VENV)
