# Two commands do everything: `make demo` runs the whole loop, `make test` passes the tests.
# Each sets up .venv first, once; it is rebuilt when the lock changes.

# Compiled modules are kept even where the environment says otherwise: dozens of processes start.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXTRA := $(PIP) install --quiet --no-build-isolation -c requirements.lock -e .

.PHONY: demo test test-vllm lint bench fuzz mutate docs clean

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "setting up $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and alone: its exact version decides which build the rest is resolved against.
	@$(PIP) install --quiet "$$(grep '^torch==' requirements.lock)"
	@$(PIP) install --quiet -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@# Empty, migrated databases of Prefect and MLflow: servers on fresh ones start seconds later.
	@$(BIN)/python -m flows.servers.database
	@$(BIN)/python -m alignment.tracking.database
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/align run configs/demo.yaml

test: $(STAMP)
	@$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder

# Against a real vLLM, in the environment of `align vllm install` or of ALIGN_TEST_VLLM=its/bin/python.
test-vllm: $(STAMP)
	@ALIGN_TEST_VLLM=$${ALIGN_TEST_VLLM:-1} $(BIN)/python -m pytest -s --timeout 0 tests/vllm

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo

bench: $(STAMP)
	@$(BIN)/python -m tests.benchmarks $(SIZES)

# Readers, JSON lines, records, settings, templates and the gate on 10,000 random inputs each; `make
# test` tries a few.
fuzz: $(STAMP)
	@ALIGN_FUZZ=$${ALIGN_FUZZ:-10000} $(BIN)/python -m pytest -n 2 --timeout 0 tests/fuzz

# Some 2,600 mutants of the pure functions; those that no test notices are listed (CONTRIBUTING.md
# says which may be). Ctrl-C stops it, the next call goes on; `mutmut show NAME` prints one. Decorated
# functions are not mutated.
mutate: $(STAMP)
	@$(BIN)/mutmut --version >/dev/null 2>&1 || $(EXTRA)"[mutate]"
	@$(BIN)/mutmut run; $(BIN)/mutmut results | grep survived || echo "no survivors"

docs: $(STAMP)
	@$(BIN)/mkdocs --version >/dev/null 2>&1 || $(EXTRA)"[docs]"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "open build/site/index.html (its search needs a server: python3 -m http.server -d build/site)"

clean:
	rm -rf $(VENV) mutants .import_linter_cache .mypy_cache .ruff_cache .pytest_cache build *.egg-info
