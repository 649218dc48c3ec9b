# kdray: `make grid` runs the quickstart grid, `make test` the tests; both set up what they need in .venv.
PYTHON ?= python3
GRID ?= grids/quickstart.yaml
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install grid submit check plan report mlflow test test-all test-unit test-gpu torture lint renew clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-9s  %s\n", $$1, $$2 }'

install: $(READY)  ## create .venv with the tested versions of everything

$(READY): pyproject.toml cluster/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kdray needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	@echo "installing into $(VENV) (some minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check -c cluster/constraints.txt setuptools -e '.[dev]'
	@touch $@

grid: $(READY)  ## run a grid, or go on with it (GRID=grids/quickstart.yaml)
	@$(BIN)/kdray run "$(GRID)" $(ARGS)

submit: $(READY)  ## run a grid as a job of a Ray cluster, or follow it (RAY_API_SERVER_ADDRESS=http://HOST:8265)
	@$(BIN)/kdray submit "$(GRID)" $(ARGS)

check: $(READY)  ## check a grid file without running it (GRID=...)
	@$(BIN)/kdray check "$(GRID)"

plan: $(READY)  ## show a grid's steps and their states (GRID=...)
	@$(BIN)/kdray plan "$(GRID)"

report: $(READY)  ## print a grid's table and write its report (GRID=...)
	@$(BIN)/kdray report "$(GRID)"

mlflow: $(READY)  ## the MLflow UI of a grid on http://127.0.0.1:5000 (GRID=...)
	@$(BIN)/kdray track --serve "$(GRID)"

test: $(READY)  ## the tests (about half an hour on 2 cores)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m 'not nightly'

test-all: $(READY)  ## the tests, and whole grids of single features
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-unit: $(READY)  ## the tests that take about a minute together
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m 'not ray and not slow'

test-gpu: $(READY)  ## the checks that need a GPU, one after the other (some five minutes on an H200)
	@$(BIN)/pytest -m gpu tests/gpu

torture: $(READY)  ## kill and damage a small grid N times and see that nothing finished is lost (N=20 SEED=0 MET="earlier outputs")
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.torture $(or $(N),20) --seed $(or $(SEED),0) $(if $(MET),--met $(MET))

lint: $(READY)  ## ruff, pyright and the import contract
	@$(BIN)/ruff check . && $(BIN)/pyright && $(BIN)/lint-imports

renew: $(READY)  ## write anew what is made of the source: the golden ids, the grid file's schema and its table, the licences
	@$(BIN)/python -m tests.plan.test_golden_ids && $(BIN)/python -m tests.spec.test_schema && $(BIN)/python -m tests.test_licences

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache *.egg-info
