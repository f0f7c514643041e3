# Every target makes its own virtual environment in .venv: python3 and make are all a machine needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install run test soak takeovers simulate check format bench screenshots reference clean

install: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

run: install
	$(BIN)/testbed run scenarios/zone-outage.yaml

# Tests of live clusters want the machine for themselves, the others share it.
test: install
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not live"
	$(BIN)/python -m pytest -m "live and not soak" tests/emulation tests/multimachine

soak: install
	$(BIN)/python -m tests.soak
	$(BIN)/python -m pytest -m soak tests/multimachine

# 20 kills of the master that leads, on one live cluster; LEASE=--lease with Kubernetes' timings of leader election
takeovers: install
	$(BIN)/python -m tests.takeovers $(LEASE)

simulate: install
	$(BIN)/python -m tests.consensus $(SCHEDULES)
	$(BIN)/python -m tests.isr $(SCHEDULES)
	$(BIN)/python -m tests.control.masters $(SCHEDULES)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks

screenshots: install
	$(BIN)/python -m tests.screenshots $(RUN)

# docs/reference.md, of the models of the language
reference: install
	$(BIN)/python -m tests.reference

clean:
	rm -rf .venv runs
