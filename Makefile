# `make sweep` and `make test` need nothing but git, make and Python 3.11 or 3.12: the first of them makes .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help install sweep quick figures mnist toy gaussian test test-slow lint format types check docs benchmark lock clean

help:            ## say what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

install: $(VENV)/installed   ## make .venv with the pinned requirements

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  "rd_elbo needs Python 3.11 or later, not %d.%d: try make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv --copies $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

sweep: install   ## train the quickstart grid and draw it (runs/quickstart)
	$(BIN)/python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/quickstart

quick: install   ## the same in seconds, too short to show anything (runs/quick)
	$(BIN)/python scripts/sweep.py --config=configs/quickstart.py:quick --workdir=runs/quick

figures: install ## redraw the figures of runs/quickstart from its tables
	$(BIN)/python scripts/figures.py --workdir=runs/quickstart

mnist: install   ## the paper's twelve families at a size for two cores, about an hour (runs/mnist_small)
	$(BIN)/python scripts/sweep.py --config=configs/mnist_small.py --workdir=runs/mnist_small
	$(BIN)/python scripts/gallery.py --workdir=runs/mnist_small
	$(BIN)/python scripts/compare.py --workdir=runs/mnist_small

toy: install     ## the exact toy model: optimum, ELBO, target rate (runs/toy)
	$(BIN)/python -m experiments.toy --workdir=runs/toy

gaussian: install ## linear VAEs on the exact curve of a Gaussian source (runs/gaussian)
	$(BIN)/python -m experiments.gaussian --workdir=runs/gaussian

test: install    ## run the tests, but for the slow ones
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not slow"

test-slow: install   ## run the tests that start processes or compile for long
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m slow

lint: install    ## look for mistakes and unformatted code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## mend what lint finds, where it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install   ## check the types of the library
	$(BIN)/mypy

check: lint types test test-slow   ## everything CI asks

docs: install    ## build the documentation (docs/_build/html)
	$(BIN)/python -m sphinx -c docs -W --keep-going -q . docs/_build/html

benchmark: install   ## measure populations beside other tools (pip install -e ".[benchmark]" has them)
	$(BIN)/python scripts/benchmark.py all
	$(BIN)/python scripts/benchmark.py scaling

lock: install    ## pin the newest versions for all supported Pythons; keeps registry names out of the file
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

clean:           ## remove what make made, but no runs
	rm -rf $(VENV) build docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
