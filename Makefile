# make run    set up and serve http://127.0.0.1:7860    (PORT=8000 changes the port, DATA=dir the folder)
# make test   set up and run every test, side by side on all cores    (PYTEST='-m "not slow"' runs the fast ones alone)
# make lint   ruff, mypy, and for the JavaScript tsc and eslint: needs Node.js
# make loop   the whole loop, headless, on simulated judgments; ends with a decision and its table
# make lock   what is installed, with the hashes of its files, written down anew in .ci/lock
# Every package is checked against its hash there. LOCK= installs without: for a torch that is not in the lock.
PYTHON ?= python3
PORT ?= 7860
DATA ?= data
LOOP_DATA ?= loop-data
PYTEST ?=
VLLM ?= vllm
LOCK ?= .ci/lock

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Wheels alone: to build another kind of package, pip would fetch what builds it, and check no hash of that.
LOCKED := $(PIP) install --quiet --no-deps --only-binary :all: --require-hashes --requirement
CONSTRAINED := $(PIP) install --quiet --constraint .ci/constraints.txt

.PHONY: run install weights test test-exports test-4bit test-ray test-vllm test-setup lint lock loop clean

run: install weights
	$(BIN)/rankloop serve --port $(PORT) --data $(DATA)

install: .venv/installed

.venv/installed: pyproject.toml .ci/constraints.txt $(wildcard .ci/lock/*.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: run 'make PYTHON=python3.11 $(MAKECMDGOALS)'"; exit 1; }
	$(PYTHON) -m venv .venv
ifneq ($(LOCK),)
	$(LOCKED) $(LOCK)/build.txt
	@$(LOCKED) $(LOCK)/torch-cpu.txt 2>/dev/null || \
		{ echo "no index here has torch's CPU build in a file that is locked: PyPI's, on Linux with CUDA"; $(LOCKED) $(LOCK)/torch.txt; }
	$(LOCKED) $(LOCK)/run.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
else
	$(PIP) install --quiet --upgrade "pip==26.3"
	$(CONSTRAINED) torch
	$(CONSTRAINED) --editable .
endif
	@touch $@

weights: install
	@$(BIN)/python -m rlhf.model_files

test-setup: install
ifneq ($(LOCK),)
	$(LOCKED) $(LOCK)/test.txt
else
	$(CONSTRAINED) --editable '.[test]'
endif
	@sh .ci/browser

test: test-setup weights
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST)

# The export formats whose packages are large and no part of rankloop's environment.
test-exports: test-setup
	$(BIN)/python -m pytest -m packages tests/rlhf/deploy $(PYTEST)

# The same for a base in 4 bits, with bitsandbytes: 125 MB.
test-4bit: test-setup
	$(BIN)/python -m pytest -m packages tests/rlhf/models/test_four_bit.py $(PYTEST)

# Rounds on a real Ray, which has an environment of its own: rankloop speaks its REST API and does not import it.
RAY ?= ray[default]==2.60.0

test-ray: test-setup
	@test -x build/ray/bin/ray || { $(PYTHON) -m venv build/ray && build/ray/bin/python -m pip install --quiet "$(RAY)"; }
	RANKLOOP_RAY=build/ray/bin/ray $(BIN)/python -m pytest -m packages tests/rlhf/runs/test_real_ray.py $(PYTEST)

# Rollouts by vLLM, which is no part of rankloop's environment: make test-vllm VLLM=/path/to/vllm
test-vllm: test-setup weights
	RANKLOOP_VLLM=$(VLLM) $(BIN)/python -m pytest -m packages tests/rlhf/ppo/test_rollouts_by_vllm.py $(PYTEST)

# The linters of the JavaScript, as .ci/package-lock.json has them.
NODE_BIN := .ci/node_modules/.bin

.ci/node_modules/installed: .ci/package.json .ci/package-lock.json
	@command -v node >/dev/null && command -v npm >/dev/null || \
		{ echo "make lint checks the JavaScript too and needs Node.js 20.19 or newer with npm: apt-get install nodejs npm, or https://nodejs.org"; exit 1; }
	npm ci --prefix .ci --ignore-scripts --no-audit --no-fund
	@touch $@

lint: test-setup .ci/node_modules/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NODE_BIN)/tsc --project .ci
	$(NODE_BIN)/eslint --config .ci/eslint.config.js --max-warnings 0 feedback_ui/assets
	$(BIN)/python .ci/lock.py --check
	$(PIP) check

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --require-hashes --requirement .ci/lock/tools.txt
	build/lock/bin/python .ci/lock.py

loop: install weights
	$(BIN)/rankloop loop --data $(LOOP_DATA) --rounds 1 --judge sentiment --votes 600

clean:
	rm -rf .venv .ci/node_modules build *.egg-info
