# `make` alone lists the targets. Everything runs in .venv, which `make setup` builds and keeps up to date.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
QUICK := not examples and not trainers and not chaos and not soak

.DEFAULT_GOAL := help
.PHONY: help setup proto demo test check bench bench-scale cover examples chaos soak trainers clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: $(STAMP)  ## build .venv with everything; again only when pyproject.toml or constraints.txt changed

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[service,torch,mlx,dev]'
	touch $@

proto: $(STAMP)  ## regenerate the checked-in protobuf code
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
		penstock_proto/v1/data.proto penstock_proto/v1/control.proto penstock_proto/v1/rows.proto

demo: $(STAMP)  ## start a server on real data and train two small models from it
	$(BIN)/python examples/demo.py

test: $(STAMP)  ## all tests but those that take minutes
	$(PYTEST) -n 3 -m "$(QUICK)" tests

check: $(STAMP)  ## style, types, layers, freshness of generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/test_proto_fresh.py

# The race takes 30 minutes, the first time 10 more and 25 GB in .bench; RACE='--quick' or RACE='--peer litdata' less.
RACE := --json benchmarks/results/race.json --markdown benchmarks/results/race.md --plot benchmarks/results/race.png
bench: $(STAMP)  ## speed at the trainer and of the peers, what mixing and many directories cost; into benchmarks/results/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.throughput --pools 8 --json benchmarks/results/throughput.json
	$(BIN)/python -m benchmarks.race $(RACE)
	$(BIN)/python -m benchmarks.blockwise --json benchmarks/results/blockwise.json --plot benchmarks/results/blockwise.png
	$(BIN)/python -m benchmarks.directories --json benchmarks/results/directories.json
	$(BIN)/python -m benchmarks.store --json benchmarks/results/store.json
	$(BIN)/python -m benchmarks.first_epoch --json benchmarks/results/first_epoch.json
	$(BIN)/python -m benchmarks.jobs --json benchmarks/results/jobs.json
	$(BIN)/python -m benchmarks.ranks --json benchmarks/results/ranks.json
	$(BIN)/python -m benchmarks.idle --json benchmarks/results/idle.json
	$(BIN)/python -m benchmarks.wire --json benchmarks/results/wire.json
	$(BIN)/python -m benchmarks.allocations --json benchmarks/results/allocations.json
	$(BIN)/python -m benchmarks.strings --json benchmarks/results/strings.json
	$(BIN)/python -m benchmarks.slow_worker --json benchmarks/results/slow_worker.json
	$(BIN)/python -m benchmarks.python_transform --json benchmarks/results/python_transform.json

bench-scale: $(STAMP)  ## resume, restart, memory, pools, large and many files: an hour, 40 GB of disk; JSON there too
	$(BIN)/python -m benchmarks.resume --json benchmarks/results/resume.json
	$(BIN)/python -m benchmarks.restart --json benchmarks/results/restart.json
	$(BIN)/python -m benchmarks.memory --json benchmarks/results/memory.json
	$(BIN)/python -m benchmarks.pool --json benchmarks/results/pool.json
	$(BIN)/python -m benchmarks.scale --json benchmarks/results/scale.json
	$(BIN)/python -m benchmarks.pool --pool-rows 40_000_000 --rows 44_000_000 --start full --seconds 300 \
		--json benchmarks/results/pool_40m.json

cover: $(STAMP)  ## branch coverage of the tests; HTML in htmlcov/
	$(PYTEST) -n 2 -m "$(QUICK)" --cov --cov-branch --cov-report=term:skip-covered --cov-report=html tests

examples: $(STAMP)  ## what takes minutes: the examples as users run them, the Dockerfile's commands
	$(PYTEST) -m examples tests

chaos: $(STAMP)  ## histories of kills and cuts, in memory and with real processes: CHAOS_HISTORIES=200 HISTORIES=3000 CHAOS_SEED=0
	HISTORIES=$${HISTORIES:-3000} $(PYTEST) -o timeout=3600 tests/laws/test_histories.py
	CHAOS_HISTORIES=$${CHAOS_HISTORIES:-200} $(PYTEST) -n 2 --dist loadgroup -m chaos tests/chaos

soak: $(STAMP)  ## memory stays flat: SOAK_SECONDS=600
	SOAK_SECONDS=$${SOAK_SECONDS:-600} $(PYTEST) -m soak tests/soak

trainers: .venv-trainers/.installed  ## the stream in Lightning, Accelerate and the Hugging Face Trainer, in .venv-trainers
	.venv-trainers/bin/python -m pytest -m trainers tests/trainers

.venv-trainers/.installed: pyproject.toml constraints.txt
	test -x .venv-trainers/bin/python || $(PYTHON) -m venv .venv-trainers
	.venv-trainers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[service,torch,trainers]'
	touch $@

clean:  ## caches and reports; .venv stays
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage* htmlcov build dist .demo
	find client service proto tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
