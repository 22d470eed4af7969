# make run    set up and serve http://127.0.0.1:7860    (PORT=8000 changes the port, DATA=dir the folder)
# make test   set up and run every test
# make loop   the whole loop, headless, on simulated judgments; prints its table
PYTHON ?= python3
PORT ?= 7860
DATA ?= data
LOOP_DATA ?= loop-data
PYTEST ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run install weights test test-setup lint loop clean

run: install weights
	$(BIN)/rankloop serve --port $(PORT) --data $(DATA)

install: .venv/installed

.venv/installed: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: run 'make PYTHON=python3.11 $(MAKECMDGOALS)'"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade "pip==26.3"
	$(PIP) install --quiet --constraint .ci/constraints.txt torch
	$(PIP) install --quiet --constraint .ci/constraints.txt --editable .
	@touch $@

weights: install
	@$(BIN)/python -m rlhf.weights

test-setup: install
	$(PIP) install --quiet --constraint .ci/constraints.txt --editable '.[test]'
	@sh .ci/browser

test: test-setup weights
	$(BIN)/python -m pytest $(PYTEST)

lint: test-setup
	$(BIN)/ruff check .

loop: install weights
	$(BIN)/rankloop simulate --data $(LOOP_DATA) --judge sentiment --judgments 600 --annotators 5 --flip 0.1
	$(BIN)/rankloop train --data $(LOOP_DATA) --preset laptop --include-simulated

clean:
	rm -rf .venv build *.egg-info
