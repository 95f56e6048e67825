# Every target sets up what it needs in .venv; only Python 3.11-3.13 with venv, and make, are asked for.
.DEFAULT_GOAL := help
.PHONY: help setup wheel demo test test-all mutants coverage lint format protos locks bench bench-batch bench-loadgen bench-costs bench-degrade bench-relief bench-front-ends bench-owner bench-attacks bench-path bench-rest bench-sdk soak gpu-export gpu-check figures deploy-check observability chart rehearsal fuzz chaos clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DATASET ?= digits
WORKERS ?= 2

# The first interpreter that runs and is new enough; `make PYTHON=... setup` chooses another.
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything pinned into .venv

$(READY): requirements-dev.txt requirements-cuda.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Inferry needs Python 3.11, 3.12 or 3.13 with its venv module; none was found. Install one, or name it: make PYTHON=/path/to/python3.12 setup" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@if [ -e /proc/driver/nvidia/version ]; then \
		echo "NVIDIA driver found: adding the CUDA libraries"; \
		$(PIP) install --require-hashes -r requirements-cuda.txt; fi
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

wheel: $(READY) ## Build a wheel for this Python and platform in dist/, whose server has a compiled hot path; needs a C compiler
	@COMPILE_INFERRY=1 $(BIN)/python -m build --wheel --no-isolation

demo: $(READY) ## Train, export, verify, publish, serve, classify, load-test; DATASET=digits|mnist|fashion-mnist, ARGS=--keep
	@$(BIN)/python tests/e2e/demo.py --dataset $(DATASET) $(ARGS)

test: lint ## Check style, types and import directions, and run the tests; WORKERS=0 runs them in one process
	@$(BIN)/python -m pytest -m "not slow" --numprocesses $(WORKERS)

test-all: lint ## Run every test: the slow ones too, which build wheels and fresh environments
	@$(BIN)/python -m pytest

mutants: $(READY) ## Take the guards away one by one and see that a test notices; ARGS=text picks some
	@PYTHONPATH=tests $(BIN)/python tests/mutants/run.py $(ARGS)

# The tests that drive the server; those that build environments are left out.
coverage: $(READY) ## Print which lines of the server the tests run; fail below 90 %
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/python -m coverage run -m pytest -q -m "not slow" tests/server tests/proto tests/contract tests/e2e/test_drain.py
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

lint: $(READY) ## Check style, types and import directions
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Format the code and sort its imports
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

protos: $(READY) ## Generate the message stubs from proto/
	@$(BIN)/python proto/generate_stubs.py

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header pyproject.toml

locks: $(READY) ## Compile the requirements files again; ARGS=--upgrade takes newer versions
	@$(COMPILE) $(ARGS) --extra dev -o requirements-dev.txt
	@$(COMPILE) -c requirements-dev.txt --extra batch-stores --extra client --extra http --extra load --extra server --extra sync --extra tracing --extra train -o requirements.txt
	@$(COMPILE) -c requirements-dev.txt --extra http --extra server --extra tracing -o requirements-server.txt
	@$(COMPILE) -c requirements-dev.txt --extra http --extra server-cpu --extra tracing -o requirements-server-cpu.txt
	@$(COMPILE) -c requirements-dev.txt --extra batch-stores --extra client --extra load --extra sync -o requirements-clients.txt
	@$(COMPILE) -c requirements-dev.txt --extra cuda -o requirements-cuda.txt
	@$(COMPILE) -c requirements-dev.txt --extra compile -o requirements-compile.txt

bench: $(READY) ## Measure the server beside ONNX Runtime, Triton, Mosec and MLServer, and exported graphs; ARGS=--quick
	@PYTHONPATH=tests:. $(BIN)/python -m bench $(ARGS)
	@PYTHONPATH=tests:. $(BIN)/python -m bench.precision

bench-batch: $(READY) ## Time batch jobs beside scripts and Ray Data, and callers beside a job; ARGS="--quick mnist jpegs beside"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.batch_jobs $(ARGS)

bench-front-ends: $(READY) ## What front ends cost and bring; ARGS="--front-ends 0 1 2 --model models/mnist"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.front_ends $(ARGS)

bench-owner: $(READY) ## How many requests a second the process with the models takes from front ends
	@PYTHONPATH=tests:. $(BIN)/python -m bench.owner $(ARGS)

bench-loadgen: $(READY) ## Let MLPerf's LoadGen judge the model of `make demo` over gRPC; ARGS="--seconds 10" is quicker
	@PYTHONPATH=tests:. $(BIN)/python -m bench.loadgen $(ARGS)

bench-costs: $(READY) ## Say where the microseconds of a single-image request go; ARGS="--concurrency 1"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.request_costs $(ARGS)

bench-degrade: $(READY) ## Offer twice a model's capacity, with and without its int8 variant; ARGS="--data-dir DIR --rows 8"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.degrade $(ARGS)

bench-relief: $(READY) ## The same with models that sleep, also on a busy machine; ARGS="--rounds 3 --times 1.5 2 3"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.sleeping_variants $(ARGS)

bench-rest: $(READY) ## What REST and watching cost; ARGS=cpu, ARGS=mlserver, ARGS=mosec or ARGS=watched
	@PYTHONPATH=tests:. $(BIN)/python -m bench.rest $(ARGS)

bench-attacks: $(READY) ## Attack Inferry and Triton alike, and measure memory and a good caller; ARGS="--only gzip --server inferry"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.attacks $(ARGS)

bench-sdk: $(READY) ## What the Python client costs above gRPC, and what joining calls gains; ARGS="--rounds 3"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.sdk $(ARGS)

bench-path: $(READY) ## Say which modules one warm request passes, and the calls between them
	@PYTHONPATH=tests:. $(BIN)/python -m bench.request_path $(ARGS)

GPU_MODELS := runs/bench/gpu-models

gpu-export: $(READY) ## Write the graphs that gpu-check compares; ARGS=DIR, for a machine without TensorFlow
	@PYTHONPATH=tests:. $(BIN)/python -m bench.gpu_export $(or $(ARGS),$(GPU_MODELS))

gpu-check: $(READY) ## Compare GPU and CPU, and measure both; ARGS="--effort quick|brief|thorough"; without a GPU its rows say so
	@test -d $(GPU_MODELS)/resnet50-float16 || PYTHONPATH=tests:. $(BIN)/python -m bench.gpu_export $(GPU_MODELS)
	@PYTHONPATH=tests:. $(BIN)/python -m bench.gpu_check $(GPU_MODELS) $(ARGS)

deploy-check: $(READY) ## Check images and manifests without a cluster; ARGS="FOLDER ..." or ARGS="--values FILE" checks your own
ifdef ARGS
	@PYTHONPATH=tests $(BIN)/python -m manifests $(ARGS)
else
	@$(BIN)/python -m pytest -q -m "not slow" --no-skips --numprocesses $(WORKERS) tests/deploy
endif

observability: $(READY) ## Make the dashboard and the rules of deploy/observability anew
	@PYTHONPATH=tests $(BIN)/python -m observability

chart: $(READY) ## Make the Helm chart anew from the Kubernetes manifests
	@PYTHONPATH=tests $(BIN)/python -m chart

rehearsal: $(READY) ## Roll, kill, scale and shift real servers behind a real Envoy under traffic, and behind nginx; four minutes
	@PYTHONPATH=tests $(BIN)/python -m rehearsal

soak: $(READY) ## Answer a million rows with one server and watch its memory; ARGS="--rows N" or "--swaps N"
	@PYTHONPATH=tests:. $(BIN)/python -m bench.soak $(ARGS)

chaos: $(READY) ## Disturb real servers under verified traffic: signals, disks, clocks, clients; ARGS="--only SIG --quick"
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

fuzz: $(READY) ## Attack every parser with seeded faults; ARGS="--cases 100000 --target requests --seed 1"
	@PYTHONPATH=tests:. $(BIN)/python -m fuzz $(ARGS)

figures: $(READY) ## Train the recipes and write their accuracy into trainer/README.md; goes on where it was
	@PYTHONPATH=tests:. $(BIN)/python -m bench.figures $(ARGS)

clean: ## Remove the environment and everything generated
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
