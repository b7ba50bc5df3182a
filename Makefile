# make reproduce   every method on embedded data: a table and a report
# make test        lint, types, all tests; WORKERS=4 for more of them side by side
# make reproduce TABLE=memo/cifar100_b0_inc10 ARGS="paths.data=~/data"
PYTHON ?= python3
TABLE ?= quick
ARGS ?=
RUNS ?= runs
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: reproduce test lint clean

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "mmcl needs Python 3.10 or newer; type: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

reproduce: $(INSTALLED)
	$(BIN)/mmcl reproduce $(TABLE) --runs $(RUNS) $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
