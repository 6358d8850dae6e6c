# `make repro`: the whole pipeline on a fresh machine. `make test`: the checks and the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro test quality style constraints

# `dvc repro` alone does the same, one stage after the other. A CPU stage computes with one thread, so stages share the
# cores; `--single-item` keeps two of them from locking the stages that they have in common. $(1) of them make a process,
# which renders with as many workers as there are cores for each. A GPU is not shared.
JOBS ?= $(if $(wildcard /dev/nvidia0),1,$(shell nproc))
SIDE_BY_SIDE = set -- $$(grep -E '^$(2)@' $(VENV)/stages); [ $$\# = 0 ] || \
	echo $$@ | OMP_NUM_THREADS=$$(( ($(JOBS) + $$\# - 1) / $$\# )) xargs -n $(1) -P $(JOBS) dvc --wait-for-lock repro --single-item

repro: $(VENV)/requirements.installed
	python -m pipeline_lib doctor
	dvc repro --glob 'prompts@*'
	dvc stage list --name-only | sort -t@ -k2,2 -k1,1r > $(VENV)/stages
	$(call SIDE_BY_SIDE,1,synthesize)
	$(call SIDE_BY_SIDE,1,(calibrate.*|treat|distil|evaluate-float))
	$(call SIDE_BY_SIDE,2,(reconstruct|evaluate))
	$(call SIDE_BY_SIDE,1,study.*)
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

# constraints.txt holds the versions that were tested; requirements*.txt the ranges that they are from.
$(VENV)/%.installed: %.txt requirements.txt requirements-ray.txt requirements-sign.txt constraints.txt | $(VENV)
	python -m pip install --quiet -r $< -c constraints.txt
	touch $@

# Writes constraints.txt anew: the latest versions within the ranges. `make test` then installs and tests them.
# A version loses the suffix of its build (2.14.1+cpu), which other machines do not have.
LATEST := .work/constraints
constraints:
	$(PYTHON) -m venv --clear $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet -r requirements-dev.txt
	echo '# Written by `make constraints`: the versions that were tested.' > $(LATEST)/constraints.txt
	$(LATEST)/bin/python -m pip freeze --all --exclude pip > $(LATEST)/freeze
	sed 's/+.*//' $(LATEST)/freeze >> $(LATEST)/constraints.txt
	mv $(LATEST)/constraints.txt constraints.txt
	rm -r $(LATEST)

$(VENV):
	$(PYTHON) -m venv $(VENV)
