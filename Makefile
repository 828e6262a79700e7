# Every command of the repository; `make help` lists them. Each works as the first command on a fresh checkout.
PAPERS := forward_forward rpgan_landscape diggan logsobolev_bounds diffusion_fields mma_realtime spatial_textvqa autofocusformer
TIER ?= quick
PYTHON ?= $(shell command -v python3.11 || echo python3)
ARGS ?=

PROJECTS := shared $(PAPERS)
SOURCES := $(subst $() $(),:,$(PROJECTS:%=$(CURDIR)/%/src))
STAMP := .venv/.installed
RUN := .venv/bin/python
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup test test-fast test-% lint build build-% reproduce reproduce-% train-% bench bench-% gpu-check report dashboard new data clean
.NOTPARALLEL:

help:  ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | while IFS='|' read -r name says; do printf '  %-24s %s\n' "$$name" "$$says"; done
	@echo "  papers: $(PAPERS);  TIER=quick|cpu|gpu|paper (now $(TIER))"

$(STAMP): constraints.txt $(PROJECTS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: no Python 3.11 found as '$(PYTHON)': install it, or name yours with PYTHON=..." >&2; exit 2; }
	@echo "setup: installing into .venv (a few minutes the first time)"
	@flock .setup.lock sh -ec '\
	  test -x $(RUN) || $(PYTHON) -m venv .venv; \
	  $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "./shared[test,lint]" $(PAPERS:%=-e "./%[test]"); \
	  touch $@'

setup: $(STAMP)  ## create .venv and install everything with the tested versions

test: $(STAMP)  ## every test
	@echo "test: $(PROJECTS)"
	@$(RUN) -m pytest -n 2 --dist loadfile $(PROJECTS:%=%/tests)

test-fast: $(STAMP)  ## the tests that are not marked slow
	@echo "test-fast: $(PROJECTS)"
	@$(RUN) -m pytest -n 2 --dist loadfile -m "not slow" $(PROJECTS:%=%/tests)

test-%: $(STAMP)  ## the tests of one paper, or of shared
	@echo "test: $*"
	@$(RUN) -m pytest -n 2 --dist loadfile $*/tests

lint: $(STAMP)  ## ruff, mypy, import rules, README tables up to date
	@echo "lint: ruff, mypy, import-linter, README tables"
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@MYPYPATH="$(SOURCES)" $(RUN) -m mypy $(PROJECTS:%=-p %)
	@.venv/bin/lint-imports
	@$(RUN) -m shared.report check

build: $(PAPERS:%=build-%)  ## compile every kernel ahead of time for sm_80 and sm_90

build-%: $(STAMP)  ## compile one paper's kernels
	@echo "build: kernels of $*"
	@$(RUN) -m shared.kernels.build $*

reproduce: $(STAMP)  ## every paper at TIER, then the report
	@echo "reproduce: $(PAPERS), tier $(TIER)"
	@$(RUN) -m shared.runs.reproduce_all --tier $(TIER) $(ARGS)

reproduce-%: $(STAMP)  ## one paper at TIER
	@echo "reproduce: $*, tier $(TIER)"
	@$(RUN) $*/reproduce.py --tier $(TIER) $(ARGS)
	@$(RUN) -m shared.report readme
	@$(RUN) -m shared.report build

train-%: $(STAMP)  ## one training run: ARGS="--config forward_forward/configs/mnist_small.yaml ..."
	@echo "train: $*"
	@$(RUN) $*/train.py fit $(ARGS)

bench: $(PAPERS:%=bench-%)  ## ours against the naive form and the best alternative

bench-%: $(STAMP)  ## one paper's benchmarks
	@echo "bench: $*"
	@$(RUN) $*/benchmarks/bench.py $(ARGS)

gpu-check:  ## on a machine with a CUDA GPU: every kernel's values and speed, into docs/gpu-evidence.md
	@echo "gpu-check: kernels of $(PAPERS)"
	@PYTHONPATH="$(SOURCES)" $${GPU_PYTHON:-python3} -m shared.kernels.gpu_check $(PAPERS)

report: $(STAMP)  ## report/index.html and the README tables, from ledgers and results
	@echo "report: report/index.html"
	@$(RUN) -m shared.report readme
	@$(RUN) -m shared.report build

dashboard: $(STAMP)  ## compare runs in W&B (with a key), or in its terminal viewer
	@echo "dashboard: W&B"
	@$(RUN) -m shared.dashboard $(ARGS)

new: $(STAMP)  ## lay a small, complete paper to start from: PAPER=name
	@echo "new: $(PAPER)"
	@$(RUN) -m shared.new_paper "$(PAPER)"

data: $(STAMP)  ## fetch and verify the public data sets into DATA_ROOT (default ./data)
	@echo "data: into $${DATA_ROOT:-data}"
	@$(RUN) -m shared.data.fetch $(ARGS)

clean:  ## remove what the commands made, but neither data nor finished runs
	@echo "clean: .venv, report, caches"
	@rm -rf .venv report .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
