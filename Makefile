# `make repro`: the whole pipeline on a fresh machine. `make test`: the checks and the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro test quality style

# `dvc repro` alone does the same, one stage after the other. A CPU stage computes with one thread, so stages share the
# cores; `--single-item` keeps two of them from locking the stages that they have in common. Each core gets a list, with a
# cell's two stages side by side: to start DVC takes seconds.
JOBS ?= $(shell nproc)
ON_ALL_CORES = { names=$$(cat); [ -z "$$names" ] || echo "$$names" | xargs -P $(JOBS) \
	-n $$(( 2 * ((($$(echo "$$names" | wc -l) + 1) / 2 + $(JOBS) - 1) / $(JOBS)) )) dvc --wait-for-lock repro --single-item; }

repro: $(VENV)/requirements.installed
	dvc repro --glob 'synthesize@*'
	stages=$$(dvc stage list --name-only | sort -t@ -k2,2 -k1,1r); \
	for kind in '(calibrate.*|treat|distil|evaluate-float)' '(reconstruct|evaluate)' 'study.*'; do \
		echo "$$stages" | grep -E "^$$kind@" | $(ON_ALL_CORES) || exit; \
	done
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
