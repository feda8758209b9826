# Two commands for a new user: `make demo` and `make test`. Each builds .venv when it is missing or old.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench profile lint fuzz clean

$(VENV)/.built: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "notifyd needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/python -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
	touch $@

demo: $(VENV)/.built
	$(BIN)/notifyctl demo

test: $(VENV)/.built
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 3 --dist loadgroup | tee .test-output
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@tail -n 1 .test-output

# What the benchmark wants besides: another broker, and what draws the pictures.
$(VENV)/.bench: $(VENV)/.built
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

# make bench BENCH_ARGS='--help'
bench: $(VENV)/.bench
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

# A flame graph of the hub at full rate: make profile PROFILE_ARGS='--output hub.svg'
profile: $(VENV)/.bench
	$(BIN)/python -m tests.bench.profile $(PROFILE_ARGS)

lint: $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

FUZZ_SECONDS ?= 20
fuzz: $(VENV)/.built
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz framing --seconds $(FUZZ_SECONDS)

clean:
	rm -rf $(VENV) .test-output build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
