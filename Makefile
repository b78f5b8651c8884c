# Two commands do everything: `make demo` and `make test`. Both need only Python 3.11 to 3.13, git and make.
PYTHON ?= python3
# Another Python has an environment of its own: `make test PYTHON=python3.13` makes .venv-3.13.
OTHER := $(patsubst python%,%,$(filter-out python python3,$(notdir $(PYTHON))))
VENV := .venv$(addprefix -,$(OTHER))
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE  # or every worker compiles torch anew, which takes it a minute

.PHONY: demo test lint clean

demo: $(VENV)/vittle
	$(BIN)/vittle launch --study demo --latency-budget 60%
	$(BIN)/vittle export demo --output best.yaml
	@echo "See it: $(BIN)/vittle dashboard"

# Threads of a search that wait for each other must not keep the processors from the rest: they sleep (OMP_WAIT_POLICY).
test: lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20

lint: $(VENV)/vittle-dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/python tests/support/static_checks.py

# pip keeps whatever build of torch its configuration chooses. Byte code is compiled on first use instead of all at once.
$(VENV)/vittle: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile -c constraints.txt -e .
	@touch $@

$(VENV)/vittle-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/vittle

clean:
	rm -rf .venv .venv-* build *.egg-info
