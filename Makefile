# Each target does its own set-up: a virtual environment in .venv, filled again only when pyproject.toml changes.
# PYTHON chooses the interpreter that makes it, PYTEST what pytest is told: make test PYTEST="-k route"
PYTHON ?= python3
PYTEST ?= -n 2

VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
comma := ,
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check docs bench campaign clean
.DEFAULT_GOAL := test

demo: $(VENV)/.with-demo
	@$(BIN)/scopestream demo

test: check
	@$(BIN)/python -m pytest $(PYTEST)

check: $(VENV)/.with-test-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.with-docs
	$(BIN)/mkdocs build --strict --site-dir site

bench: $(VENV)/.with-bench
	@$(BIN)/python -m benchmarks

# Hours of faults, and then a table of them.
campaign: export SCOPESTREAM_FAULT_RESULTS ?= $(CURDIR)/campaign.jsonl
campaign: $(VENV)/.with-test-lint
	@rm -f "$(SCOPESTREAM_FAULT_RESULTS)"
	@$(BIN)/python -m pytest $(PYTEST) -m "campaign or not campaign" tests/faults; status=$$?; \
	  $(BIN)/python -m tests.faults.results "$(SCOPESTREAM_FAULT_RESULTS)"; exit $$status

clean:
	rm -rf $(VENV) build dist site campaign.jsonl .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .with-test-lint has the extras test and lint.
$(VENV)/.with-%: pyproject.toml $(VENV)/.made
	@echo "Installing scopestream[$(subst -,$(comma),$*)] into $(VENV); the first time takes a minute or two."
	@$(BIN)/python -m pip install --quiet --editable ".[$(subst -,$(comma),$*)]"
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "scopestream needs Python 3.11 or newer, and '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one, for example: make PYTHON=python3.13"; \
	  exit 1; } >&2
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@
