# Two commands do everything a newcomer needs: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out
READY := $(VENV)/.ready
FUZZ := $(VENV)/.fuzz
INPUTS ?= 1000000

.PHONY: setup demo test verify fuzz lint format lock clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[report,pdf,imaging,segmentation,tuning,tcia,dev]"
	touch $(READY)

demo: setup
	$(BIN)/ctfed demo --out $(OUT)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup lint
	$(BIN)/pytest -m "not slow" -n 2 --durations=8

# Slow checks: long deployments with real processes, every kill point, long fuzzing.
verify: setup
	CTFED_HYPOTHESIS=long $(BIN)/pytest -m "slow or deployment" --durations=8
	$(MAKE) fuzz

# A million damaged messages and files, guided by coverage, on two processes.
fuzz: $(FUZZ)
	$(BIN)/python tests/fuzz/run_fuzz.py --inputs $(INPUTS)

$(FUZZ): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[fuzz]"
	touch $(FUZZ)

# The hash-checked locks of the images, after a change of pyproject.toml or constraints.txt.
lock: setup
	sh locks/make_locks.sh

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .pytest_cache .ruff_cache .hypothesis
