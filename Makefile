# Every target makes what it needs in .venv, once. Nothing but python3 (3.11 or newer) and make has to be there.

VENV := .venv
BIN := $(VENV)/bin
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help demo test bench lint clean
help:
	@echo 'make demo    train a CNN on MNIST with nn and with nn.functional, and draw pictures'
	@echo 'make test    run all tests'
	@echo 'make bench   check and time the operations; BENCH="--quick" or BENCH="--rows 3x3" is passed on'
	@echo 'make lint    ruff, mypy, import-linter'
	@echo 'make clean   remove what the other targets made'

demo: $(VENV)/has-demo
	$(BIN)/python -m examples.mnist $(DEMO)

test: $(VENV)/has-test
	$(BIN)/python -m pytest -q $(TEST)

bench: $(VENV)/has-bench
	$(BIN)/python -m bench --picture bench/out/roofline.png $(BENCH)

lint: $(VENV)/has-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis examples/mnist/out bench/out

$(VENV)/made:
	@if [ -z "$(PYTHON)" ]; then \
		echo 'No Python 3.11 or newer with venv and pip was found.' >&2; \
		echo 'Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3' >&2; \
		exit 1; fi
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The tests run the examples and the benchmarks' picture too, hence demo in test.
$(VENV)/has-demo: EXTRAS := [demo]
$(VENV)/has-test: EXTRAS := [demo,test]
$(VENV)/has-bench: EXTRAS := [demo]
$(VENV)/has-lint: EXTRAS := [demo,test,lint]
$(VENV)/has-%: pyproject.toml $(VENV)/made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(EXTRAS)'
	@touch $@
