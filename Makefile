# make demo: the quickstart notebook in JupyterLab.   make test: everything that is tested, but for
# make test-faults: thousands of interrupts, kills and damaged files, with a table of what was seen.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# Jupyter refuses to serve as root, as one is in many containers, unless told so.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: demo test test-faults
demo: .venv/demo-installed
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/quickstart.ipynb $(AS_ROOT) $(LAB_ARGS)

test: .venv/test-installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env

test-faults: .venv/test-installed
	$(BIN)/python -m pytest tests/faults -m 'bulk or not bulk'

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv --upgrade-deps .venv

.venv/%-installed: pyproject.toml | .venv
	@echo "Installing PyTorch, JupyterLab and nbfinetune into .venv: the first time 3 GB to download and" \
	  "6 GB on disk (less without Linux's CUDA libraries), 2 minutes and the time of the download."
	$(BIN)/python -m pip install --editable ".[$*]"
	touch $@
