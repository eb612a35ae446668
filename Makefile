# Every target sets itself up: on a fresh machine Python >= 3.11 (with venv), make and git are enough.
# `make` alone lists the targets.

PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python

# The name of the stamp is a checksum of the pins and of this place, so that set-up happens once and again
# whenever one of them changes, no matter what a checkout does to file times.
STATE := $(shell { pwd; cat requirements.lock requirements-bootstrap.lock pyproject.toml tools/set_up.py; } | cksum | cut -d' ' -f1)
READY := .venv/ready-$(STATE)

export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-services check format lint types contracts lock pages bench clean

help:
	@echo 'make demo            a real model on its way through the gates, on this machine'
	@echo 'make check           the fast gate: format, lint, types, lock, import contracts, unit tests'
	@echo 'make test            every test that needs no foreign server'
	@echo 'make test-services   the tests against real servers, which it installs and starts'
	@echo 'make bench [NAME...] measure: all of bench/, or bench/NAME.py'
	@echo 'make format          rewrite the code in the one format'
	@echo 'make pages           rewrite the generated pages (docs/errors.md, docs/cli.md)'
	@echo 'make lock            resolve the dependencies anew; UPGRADE=1 takes newer releases'
	@echo 'make setup, make clean'

$(READY):
	@$(PYTHON) tools/set_up.py $(READY)

setup: $(READY)

demo: $(READY)
	$(BIN)/lockgate demo

test: $(READY)
	$(PY) tools/run_tests.py

test-services: $(READY)
	$(PY) tools/run_service_tests.py

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(PY) tools/check_lock.py
	$(BIN)/lint-imports --config .importlinter --no-cache
	$(PY) -m pytest tests/architecture tests/unit

format: $(READY)
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lint: $(READY)
	$(BIN)/ruff check

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports --config .importlinter --no-cache

# Works without an up-to-date .venv: it is what one runs after a change of pyproject.toml.
lock:
	@$(PYTHON) tools/lock.py compile $(if $(UPGRADE),--upgrade)

pages: $(READY)
	$(PY) tools/errors_page.py
	$(PY) tools/cli_page.py

# `make bench startup rollback`: what follows `bench` names files, not targets.
ifeq (bench,$(firstword $(MAKECMDGOALS)))
BENCHES := $(filter-out bench,$(MAKECMDGOALS))
ifneq (,$(BENCHES))
.PHONY: $(BENCHES)
$(BENCHES): bench ; @:
endif
endif

bench: $(READY)
	@$(PY) tools/run_benches.py $(BENCHES)

clean:
	rm -rf .venv .bench .bootstrap .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find src tests tools bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
