# Two commands do everything: `make demo` and `make test`. Both need only Python 3.11 to 3.13, git and make.
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # or every worker compiles torch anew, which takes it a minute

.PHONY: demo test lint clean

demo: .venv/vittle
	$(BIN)/vittle launch --study demo --latency-budget 60%
	$(BIN)/vittle export demo --output best.yaml
	@echo "See it: $(BIN)/vittle dashboard"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile  # Ray's searches in one process, the rest in the other

lint: .venv/vittle-dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/python tests/support/static_checks.py

# pip keeps whatever build of torch its configuration chooses. Byte code is compiled on first use instead of all at once.
.venv/vittle: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile -c constraints.txt -e .
	@touch $@

.venv/vittle-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	@touch $@ .venv/vittle

clean:
	rm -rf .venv build *.egg-info
