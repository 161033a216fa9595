# Set-up is part of every command: the first one makes .venv with any Python >= 3.11.
#   make run ARGS="--preset mnist"    PYTHON=/path/to/python make test

ARGS ?=
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PROJECT := setup.cfg pyproject.toml constraints.txt

.PHONY: run test test-slow lint format docs bench clean

run: $(VENV)/.experiments
	$(BIN)/python -m experiments.glow_celeba $(ARGS)

# The tests of a file run in one process, which keeps what they compile.
test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# The tests that take minutes: before a release.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -E -b html docs docs/_build

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.glow $(ARGS)

clean:
	rm -rf $(VENV) docs/_build docs/api build *.egg-info

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
