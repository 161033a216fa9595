# Set-up is part of every command: the first one makes .venv with any Python >= 3.11.
#   make run ARGS="--preset mnist"    PYTHON=/path/to/python make test

ARGS ?=
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINT := --constraint constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINT)
PROJECT := setup.cfg pyproject.toml constraints.txt

# The interpreters that `make test-wheel` tries, each if it is there.
WHEEL_PYTHONS ?= python3.11 python3.12 python3.13 python3.14

.PHONY: run test test-slow test-newest test-wheel lint format docs bench clean

run: $(VENV)/.experiments
	$(BIN)/python -m experiments.glow_celeba $(ARGS)

# The tests of a file run in one process, which keeps what they compile.
test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# The tests that take minutes: before a release.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(ARGS)

# The newest of everything, without constraints, in an environment of its own.
test-newest:
	rm -rf .venv-newest
	$(MAKE) test VENV=.venv-newest CONSTRAINT='--upgrade --upgrade-strategy eager' \
	  PYTHON='$(or $(PYTHON),python3.14 python3.13 python3.12)'

# The source distribution and the wheel; what the wheel does alone in a clean environment, and then
# with its extras: the tests of fitting, of saved models and of the sockets, away from the checkout.
WHEEL_EXTRAS := experiments,interop,loggers,tables,datasets,test
WHEEL_TESTS := $(addprefix tests/,fitting interop sharing data/test_table_files.py)
test-wheel: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	@for candidate in $(WHEEL_PYTHONS); do \
	  if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    "$$candidate" -m venv --clear .venv-wheel && \
	    .venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl && \
	    .venv-wheel/bin/python -I tests/packaging/smoke.py && \
	    .venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check \
	      --constraint constraints.txt "$$(ls dist/*.whl)[$(WHEEL_EXTRAS)]" && \
	    rm -rf build/wheel && mkdir -p build/wheel && \
	    cp -r tests experiments setup.cfg README.md build/wheel && \
	    (cd build/wheel && ../../.venv-wheel/bin/python -m pytest -n 2 --dist loadfile \
	      $(WHEEL_TESTS)) || exit 1; \
	  else \
	    echo "no $$candidate here"; \
	  fi; \
	done

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -j auto -b html docs docs/_build/html

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.glow $(ARGS)

clean:
	rm -rf $(VENV) .venv-newest .venv-wheel docs/_build docs/api build dist *.egg-info

# An interpreter counts if it runs, is new enough and can make virtual environments:
# a launcher that is on the path may still have nothing behind it.
$(VENV)/.created:
	@for candidate in $(PYTHONS); do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then \
	    echo "making $(VENV) with $$("$$candidate" --version)"; \
	    "$$candidate" -m venv --clear $(VENV) && touch $@ && exit 0; \
	    exit 1; \
	  fi; \
	done; \
	echo "No Python >= 3.11 that has venv and ensurepip: tried $(PYTHONS)." >&2; \
	echo "Name one: make $(firstword $(MAKECMDGOALS) run) PYTHON=/path/to/python" >&2; \
	exit 1

$(VENV)/.experiments: EXTRAS := experiments
$(VENV)/.test: EXTRAS := continuous,datasets,experiments,interop,loggers,tables,test
$(VENV)/.docs: EXTRAS := experiments,interop,docs
$(VENV)/.bench: EXTRAS := experiments,interop,bench
$(VENV)/.experiments $(VENV)/.test $(VENV)/.docs $(VENV)/.bench: $(VENV)/.created $(PROJECT)
	@echo "installing vaeflow[$(EXTRAS)] into $(VENV)"
	@$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.experiments  # which every set includes
