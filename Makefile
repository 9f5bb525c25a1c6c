# Targets are listed by `make help`. PYTHON is any 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
VLLM_PYTHON := .build/vllm/bin/python

.DEFAULT_GOAL := help
.PHONY: help venv vllm test lint unit test-vllm run run-vllm bench-vllm bench-routing bench-agreement clean

help:  ## list the targets
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.installed  ## the project and its test tools in .venv

# -qq leaves pip's errors. Built without isolation, so that constraints.txt also pins the build tools.
$(VENV)/.installed: constraints.txt setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) setuptools
	$(PIP_INSTALL) --no-build-isolation --use-pep517 -e '.[test]'
	@touch $@

vllm:  ## real vLLM for CPU in .build/vllm (2.5 GB)
	$(PYTHON) -m tests.e2e.setup_vllm

test: lint unit  ## ruff, mypy, unit and socket tests

lint: venv
	$(BIN)/ruff check --config .ci/ruff.toml .
	$(BIN)/ruff format --check --config .ci/ruff.toml .
	$(BIN)/mypy

unit: venv
	$(BIN)/python -m pytest -m 'not real_vllm'

test-vllm: venv vllm  ## the router in front of two real vLLM engines, about 15 minutes
	LODESTAR_VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/python -m pytest -m real_vllm tests/e2e

run: venv  ## the router on an emulated fleet: traffic and a live table, then yours to try
	$(BIN)/python -m perf.demo $(if $(MAKE_RUN_SECONDS),--end-after $(MAKE_RUN_SECONDS))

run-vllm: venv vllm  ## start two real vLLM engines and the router, send traffic, show what happened
	$(BIN)/python -m perf.serving.demo --vllm-python $(VLLM_PYTHON)

bench-vllm: venv vllm  ## six policies on real vLLM engines, three runs each, about 40 minutes
	$(BIN)/python -m perf.serving --vllm-python $(VLLM_PYTHON)

bench-routing: $(VENV)/.bench  ## every policy in virtual time, plots included, within 15 minutes
	$(BIN)/python -m perf.routing run perf/routing/cells/quick.yaml --policies $(or $(POLICIES),live) --seeds 3 --out .build/routing/quick
	$(BIN)/python -m perf.routing report .build/routing/quick

bench-agreement: venv vllm  ## virtual time held against real processes, about 15 minutes; wants the machine to itself
	$(BIN)/python -m perf.agreement emulated --vllm-python $(VLLM_PYTHON)
	$(BIN)/python -m perf.agreement vllm --vllm-python $(VLLM_PYTHON)

$(VENV)/.bench: $(VENV)/.installed
	$(PIP_INSTALL) --no-build-isolation --use-pep517 -e '.[test,bench]'
	@touch $@

clean:  ## remove both environments, logs and caches
	rm -rf $(VENV) .build build .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
