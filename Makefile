# Everything one does here, by name; `make` alone lists it.
#
# A machine needs make and Python 3.11, 3.12 or 3.13, nothing else: the first target that needs
# tools puts uv into .uv and everything that uv.lock names into .venv. Later calls find them there.
# Only the cluster asks for more: root on Debian 12, and Go. See docs/cluster-tests.md.

PYTHON ?= python3
WORKERS ?= auto
ARGS ?=

KWOK ?= 0
PROJECT ?= examples/shop
TAG ?= localhost/seeknal-k8s:dev

BIN := .venv/bin
UV := .uv/bin/uv
# One uv everywhere: the version that uv.lock gives the package itself.
UV_VERSION := $(shell sed -n '/^name = "uv"$$/{n;s/version = "\(.*\)"/\1/p;}' uv.lock)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

# The interpreter is the one named above, and the environment is ours whatever shell this is.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup check format test test-cluster demo bench bench-cluster docs manifests scan schema image kind kind-down cluster-build cluster-up cluster-down clean distclean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; \
		do printf '  %-13s %s\n' "$$name" "$$text"; done

setup: .venv/.ready ## Make .venv from uv.lock (PYTHON=python3.12 names another interpreter)

check: .venv/.ready ## Lint, formatting, types, layers, dependencies, lock file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/deptry .
	$(UV) lock --check

format: .venv/.ready ## Repair what ruff can repair, then format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: .venv/.ready ## Run the tests with branch coverage (ARGS="-k name -x", WORKERS=0 for one process)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term -m "not cluster" $(ARGS)

test-cluster: .venv/.ready cluster-up ## Run the tests that need a Kubernetes, on our own (ARGS, WORKERS as above)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m cluster $(ARGS)

demo: .venv/.ready ## Run the example project, every node in its own process
	$(BIN)/seeknal-k8s run examples/shop --full

bench: .venv/.ready ## Measure; results are written beside the scripts in benchmarks/
	@for script in benchmarks/bench_*.py; do echo "$$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

bench-cluster: .venv/.ready cluster-build ## Measure a thousand Jobs on fake nodes (ARGS="--jobs 10000 --write")
	$(BIN)/python benchmarks/fanout.py $(ARGS)

docs: .venv/.ready ## Write the generated pages of docs/
	$(BIN)/python -m seeknal_k8s.settings > docs/settings.md.new
	mv docs/settings.md.new docs/settings.md
	$(BIN)/python -m seeknal_k8s.verdict > docs/troubleshooting.md.new
	mv docs/troubleshooting.md.new docs/troubleshooting.md
	$(BIN)/python helm/generate.py

manifests: cluster-build ## Write manifests/seeknal-k8s.yaml: the chart with its defaults, for those without Helm
	$(BIN)/python helm/generate.py --manifests

scan: .venv/.ready ## Look over manifests and Dockerfile with checkov; .checkov.yaml says what is left out, and why
	$(UV) tool run checkov@3.3.30 --config-file .checkov.yaml

schema: .venv/.ready ## Write docs/seeknal-k8s.schema.json, which editors use for seeknal-k8s.yml
	$(BIN)/python -m seeknal_k8s.options > docs/seeknal-k8s.schema.json.new
	mv docs/seeknal-k8s.schema.json.new docs/seeknal-k8s.schema.json

image: cluster-build ## Build the image into our cluster, print its size (PROJECT=, TAG=localhost/seeknal-k8s:dev)
	tests/cluster/image $(TAG) . --opt build-arg:PROJECT=$(PROJECT) --opt build-arg:VERSION=$(VERSION)

kind: .venv/.ready ## All of it on a laptop with Docker, kind, kubectl and helm: cluster, chart, example
	mkdir -p .kind-store && chmod 777 .kind-store
	kind get clusters | grep -qx seeknal || kind create cluster --config kind-config.yaml
	docker build --build-arg PROJECT=$(PROJECT) --build-arg VERSION=$(VERSION) -t localhost/seeknal-k8s:kind .
	kind load docker-image --name seeknal localhost/seeknal-k8s:kind
	kubectl --context kind-seeknal apply -f manifests/kind/namespace.yaml -f manifests/kind/store.yaml
	helm upgrade --install seeknal helm/seeknal-k8s --kube-context kind-seeknal --namespace seeknal \
		--values manifests/kind/values.yaml --wait --timeout 10m
	kubectl --context kind-seeknal --namespace seeknal port-forward service/seeknal-seeknal-k8s-server 4200 & \
		trap "kill $$!" EXIT; until curl -sf http://127.0.0.1:4200/api/health >/dev/null; do sleep 1; done; \
		export PREFECT_API_URL=http://127.0.0.1:4200/api; \
		$(BIN)/seeknal-k8s deploy daily --project /project && \
		$(BIN)/prefect deployment run seeknal-run-pipeline/daily --watch
	@echo "Look at it: kubectl --context kind-seeknal --namespace seeknal port-forward service/seeknal-seeknal-k8s-server 4200"
	@echo "and open http://127.0.0.1:4200"

kind-down: ## End the cluster of `make kind`; .kind-store stays
	kind delete cluster --name seeknal

cluster-build: ## Compile a Kubernetes for the tests, as pinned in tests/cluster: once, 15 minutes on two cores
	tests/cluster/build

cluster-up: cluster-build ## Start it, or what of it does not run (KWOK=20: and 20 fake nodes)
	tests/cluster/up --kwok $(KWOK)

cluster-down: ## End it and forget its state; what was built stays
	tests/cluster/down

clean: ## Remove what tools and runs leave behind; .venv stays
	rm -rf dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf examples/*/target examples/*/exports examples/*/.seeknal-k8s
	find seeknal_k8s tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove .venv and .uv too, as after a fresh clone
	rm -rf .venv .uv

# --compile-bytecode: without .pyc files a node's process needs 7 s instead of 3 s to import
# Seeknal, and where PYTHONDONTWRITEBYTECODE is set no later run would ever write them.
.venv/.ready: pyproject.toml uv.lock | $(UV)
	@test -x $(BIN)/python || $(UV) venv --quiet --clear --python .uv/bin/python .venv
	$(UV) sync --frozen --compile-bytecode
	@touch $@

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "seeknal-k8s needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@rm -rf .uv
	@$(PYTHON) -m venv .uv || { rm -rf .uv; \
		echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt install python3-venv" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
