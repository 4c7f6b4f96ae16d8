# One name for each chore. Every target makes the environment it needs, so each works on a fresh clone.
#   make PYTHON=python3.12 demo      another interpreter (3.10 or newer)
#   make PIP_FLAGS=...               flags for pip, such as an index that has CPU builds of torch

PYTHON ?= python3
PIP_FLAGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt $(PIP_FLAGS)
OUT ?= outputs

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint types imports docs bench wheel check check-fast format clean

help: ## List the chores
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.runtime ## Turn a scene file into a picture with the model in the package
	$(BIN)/instancediffusion generate examples/demo.json -o $(OUT)/demo --seed 0
	@echo "The picture, its overlay and its manifest are in $(OUT)/demo"

test: $(VENV)/.dev ## Run the tests, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not network"

test-slow: $(VENV)/.dev ## Run the slow tests: clusters, hubs, runs that are killed and resumed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not network"

lint: $(VENV)/.dev ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## Check types, strictly
	$(BIN)/mypy

imports: $(VENV)/.dev ## Check who imports whom
	$(BIN)/lint-imports

docs: $(VENV)/.dev ## Build the documentation, where any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.runtime ## Measure the cost of the model on this machine
	$(BIN)/instancediffusion bench

wheel: $(VENV)/.dev ## Build the wheel, install it alone in a fresh environment, and make a picture with it
	rm -rf dist build/wheel
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet -c constraints.txt $(PIP_FLAGS) dist/*.whl
	cd build && wheel/bin/instancediffusion doctor
	cd build && wheel/bin/instancediffusion generate ../examples/demo.json -o wheel/picture --seed 0 --steps 10
	test -n "$$(find build/wheel/lib -path '*/instancediffusion/examples/demo.json')"
	test -n "$$(find build/wheel/picture -name '*.png' ! -name '*_overlay.png' -size +1k)"
	rm -rf build/wheel

check: lint types imports test test-slow docs wheel ## Everything continuous integration runs

# No pipelines, no training, no browser.
FAST := $(addprefix tests/, scene geometry conditioning sampling adapter golden data rendering \
	test_imports.py test_errors.py test_runs.py)

check-fast: lint types imports ## Style, types, layers and the quick tests: for every commit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow and not network" $(FAST)

format: $(VENV)/.dev ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what the other targets made, but for the environment
	rm -rf build dist site $(OUT)/demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) -e '.[dev]'
	@touch $@
