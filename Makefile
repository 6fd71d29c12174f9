# Everything a person or a machine does with this project. Needs Python 3 and make; `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON_VERSION := 3.11
UV_VERSION := 0.13.8
BIN := .venv/bin

# uv from PATH when it is of the series that wrote uv.lock, else a private one in .tools/.
OWN_UV := .tools/uv-$(UV_VERSION)
UV ?= $(or $(and $(filter $(basename $(UV_VERSION)).%,$(word 2,$(shell uv --version 2>/dev/null))),\
	$(shell command -v uv)),$(OWN_UV)/bin/uv)

# The system's certificates, where it has any: a company's or a laboratory's proxy is known to them.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/cert.pem),1,0)

# Two workers suit two cores; TensorFlow's own threads fill what they leave. A file's tests stay
# on one worker, so that what they share (a trained model, an imported dataset) is made once. Files go
# out in the order of collection, the longest first (tests/conftest.py), not by how many tests they hold.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test test-all: export CUDA_VISIBLE_DEVICES := -1
test test-all: export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help setup quickstart test test-all lint golden format bench bench-training bench-labels bench-env bench-serving serve-env clean

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) \
		| while IFS=$$'\t' read -r task text; do printf '  make %-14s %s\n' "$$task" "$$text"; done

setup: .venv/.synced ## Build the environment in .venv (uv and Python 3.11 are fetched if absent)
	@echo "The environment is in .venv. Next: make quickstart"

quickstart: .venv/.synced ## Run the whole pipeline on generated images: minutes, no data needed
	@$(BIN)/cortexflow run quickstart

test: .venv/.synced ## Run the fast tests (offline)
	@$(PYTEST)

test-all: .venv/.synced ## Run all tests, the slow ones too
	@$(PYTEST) -m ""

lint: .venv/.synced ## Check style, types, imports between rooms, and for secrets
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify --baseline .secrets.baseline

golden: .venv/.synced ## Compile the pipelines that the tests compare with, after a change on purpose
	@for target in kubeflow vertex; do $(BIN)/cortexflow compile quickstart --for $$target \
		--out kubeflow/golden/quickstart-$$target.yaml || exit 1; done

format: .venv/.synced ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/.synced ## Run the short benchmarks: descriptors, gate, ingest, phantom (minutes)
	@for name in descriptors gate ingest phantom; do \
		echo "== $$name"; $(BIN)/python -m "benchmarks.$$name" || exit 1; done

bench-training: .venv/.synced ## Compare training steps with their peers' (an hour or more on two cores)
	@$(BIN)/python -m benchmarks.training

bench-labels: .venv/.synced ## Measure what pretraining is worth with few labels (hours)
	@$(BIN)/python -m benchmarks.label_efficiency

# All that the peer runs by. torchvision and lightly are installed without their dependencies: those
# of lightly hold much that no step uses (pytorch-lightning, hydra, a client of its server), and a
# torchvision that names another build of PyTorch would replace the one that is there.
PEER := torch==2.13.0 numpy==2.4.6 pillow==13.0.0 tqdm==4.70.1 lightning-utilities==0.15.3 \
	filelock==4.2.11 fsspec==2026.9.0 Jinja2==3.1.6 MarkupSafe==3.0.4 mpmath==1.3.0 networkx==3.6.1 \
	packaging==26.3 sympy==1.14.0 typing_extensions==4.16.0

# On Linux the default index gives the build of PyTorch for CUDA, of several GB; the CPU is measured
# alike. Where an index of CPU builds can be reached, PIP_INDEX_URL and PIP_EXTRA_INDEX_URL say so,
# and the environment takes 1 GB.
bench-env: .venv/.synced ## Build .bench-env, with PyTorch and lightly as peers (1 GB; with CUDA several)
	@$(BIN)/python -m venv .bench-env
	@.bench-env/bin/pip install --quiet $(PEER)
	@.bench-env/bin/pip install --quiet --no-deps torchvision==0.28.0 lightly==1.6.0

bench-serving: .venv/.synced ## Compare the server with kserve, litserve, Triton and TFX's way (an hour)
	@$(BIN)/python -m benchmarks.serving
	@$(BIN)/python -m benchmarks.serving_rollback
	@$(BIN)/python -m benchmarks.serving_soak

serve-env: .venv/.synced ## Build .serve-env, with the peers of bench-serving (2 GB)
	@$(BIN)/python -m venv .serve-env
	@.serve-env/bin/pip install --quiet -r benchmarks/serving_peers/requirements.txt

clean: ## Remove caches and builds (the environment, data and runs stay)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

# Compiled once here: 23,000 files of TensorFlow and TFX would be parsed by each node's process.
# The stamp is newer than the lock once the environment holds it, so a second `make` syncs nothing.
.venv/.synced: uv.lock pyproject.toml setup.py | $(UV)
	@$(UV) sync --locked --python $(PYTHON_VERSION) --compile-bytecode
	@touch $@

$(OWN_UV)/bin/uv: .ci/install_uv.py
	@command -v python3 >/dev/null || { \
		echo "Python 3 is not on PATH. Install it, or install uv $(UV_VERSION), and repeat." >&2; exit 1; }
	@python3 .ci/install_uv.py $(UV_VERSION) $(OWN_UV)
	@touch $@
