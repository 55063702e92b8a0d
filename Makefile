# Homeport's commands. `make help` lists them; each sets up what it needs first.
#
# Environments: .venv holds Homeport and, for the development targets, the tools; .venv-proto holds
# the generator of homeport/v1 and buf (tools/proto.sh says why they live apart). Both are brought
# to what the lock files say when a lock is newer than the stamp inside.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Processes that share `make test` (tests/parallel.py); 0: none but the one.
WORKERS ?= 3
export PYTHON

RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev

.PHONY: help up test check check-style check-types check-contract fmt proto bench bench-placement bench-placement-full e2e faults placement-cases placement-mutations simulate simulate-mutations lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(RUNTIME) ## start a one-machine cluster with the example stack; Ctrl-C stops all of it
	@deploy/up.sh

test: $(DEV) ## everything but benchmarks and the long suites; installs Docker and Prometheus if need be
	@tests/setup.sh
	$(PYTEST) -n $(WORKERS) -m "not bench and not slow" $(ARGS)

# In parallel, each with its output in one piece; all of them, whatever one finds.
check: $(DEV) ## format, lint, types, import contracts, wire contract, fresh generated code
	@$(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target \
	  check-types check-contract check-style

check-style: $(DEV)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-logo

check-types: $(DEV)
	$(BIN)/mypy

# One after the other: the first makes the environment that all three need.
check-contract:
	tools/proto.sh lint
	tools/proto.sh breaking
	tools/proto.sh fresh

fmt: $(DEV) ## format, and mend what the linter can mend itself
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

proto: ## generate homeport/v1 from proto/
	tools/proto.sh generate

bench: $(DEV) ## measure; prints figures, judges nothing (ONLY=name for one; docs/performance.md)
	@tests/setup.sh
	IDLE_SECONDS=$(or $(IDLE_SECONDS),60) $(PYTEST) tests/bench -m bench -s --timeout=0 \
	  $(if $(ONLY),-k "$(ONLY)") $(ARGS)

bench-placement: $(DEV) ## placement beside its targets, in 20 minutes: decisions, scheduler_perf, GPU traces, 2,000,000 containers
	@tests/setup.sh etcd etcdctl
	$(BIN)/python -m tests.bench.placement $(ARGS)

bench-placement-full: $(DEV) ## the same with all sizes, ten seeds, all traces, and pods one by one
	@tests/setup.sh etcd etcdctl
	$(BIN)/python -m tests.bench.placement --full $(ARGS)

e2e: $(DEV) ## the suites on three real engines (ONLY=name for tests/e2e/test_NAME.py)
	@tests/setup.sh
	@suite="tests/e2e$(if $(ONLY),/test_$(ONLY).py)"; \
	if [ ! -e "$$suite" ]; then \
	  echo "there is no suite '$(ONLY)'; there are:" >&2; \
	  ls tests/e2e | sed -n 's/^test_\(.*\)\.py$$/  \1/p' >&2; exit 2; \
	fi; \
	$(PYTEST) "$$suite" -m e2e $(ARGS)

simulate: $(DEV) ## whole clusters under trouble, in virtual time: SEEDS=20000 FIRST_SEED=0 (docs/simulation.md)
	$(BIN)/python -m tests.simulation $(or $(FIRST_SEED),0) $(or $(SEEDS),1000) \
	  --state $(or $(STATE),.simulation/state-$(or $(FIRST_SEED),0)) $(ARGS)

simulate-mutations: $(DEV) ## three seeds for each rule of the protocol that fail when it is switched off
	$(BIN)/python -m tests.simulation.mutations $(ARGS)

placement-cases: $(DEV) ## the placement engine against its reference: CASES=100000 FIRST_SEED=0 (docs/placement.md)
	$(BIN)/python -m tests.placement $(or $(FIRST_SEED),0) $(or $(CASES),10000) $(ARGS)

placement-mutations: $(DEV) ## tests of placement, with one thing wrong in it: FILE=engine.py (docs/placement.md)
	$(BIN)/python -m tests.placement.mutations $(FILE) $(ARGS)

comma := ,
faults: $(DEV) ## break a real cluster on purpose (ONLY=F09,F13 for some; docs/faults.md)
	@tests/setup.sh
	$(PYTEST) tests/faults -m "not short" $(if $(ONLY),-k "$(subst $(comma), or ,$(ONLY)) or history") $(ARGS)

lock: $(DEV) ## compile the lock files anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --group build \
	  --universal --generate-hashes --no-header --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group build --group dev --constraint requirements.lock \
	  --universal --generate-hashes --no-header --quiet -o requirements-dev.lock
	$(BIN)/uv pip compile --group proto \
	  --universal --generate-hashes --no-header --quiet -o requirements-proto.lock

clean: ## remove the environments and caches (not a cluster's data)
	rm -rf $(VENV) .venv-proto .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache .grimp_cache build dist
	find homeport scheduler agent tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The development lock holds everything that the runtime lock does, at the same versions.
$(DEV): requirements-dev.lock
	@tools/venv.sh $(VENV) requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $(RUNTIME) $@

$(RUNTIME): requirements.lock
	@tools/venv.sh $(VENV) requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $@
