# Every target is a command a person may type; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml requirements/dev.lock
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --require-hashes --requirement requirements/dev.lock
	$(PY) -m pip install --quiet --no-deps --editable .
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## install everything for development into .venv

.PHONY: lint
lint: install ## ruff, mypy and import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

.PHONY: format
format: install ## let ruff format and fix what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: test
test: install ## unit, contract and wire tests: no cluster, no root, a few minutes
	$(PY) -m pytest -m 'not api and not e2e' $(ARGS)

include cluster/cluster.mk

.PHONY: test-api
test-api: install cluster-build-api ## against a real etcd and kube-apiserver, without a cluster
	$(PY) -m pytest -m api $(ARGS)

.PHONY: e2e
e2e: install cluster-up ## scenarios on a real one-node cluster, from the outside (root)
	$(CLUSTER) images sidecar operator shop redis postgres prometheus
	$(CLUSTER) exec -- $(PY) -m pytest -m e2e tests/e2e $(ARGS)

.PHONY: demo
demo: ## the whole story on a cluster; CONTEXT=<kube context> for yours, else a one-node cluster (root)
	@python3 examples/demo/on_cluster.py $(if $(CONTEXT),--context $(CONTEXT))

.PHONY: crd-check
crd-check: ## the chart's copy of the CRD equals crds/
	python3 charts/sync_crds.py --check

.PHONY: demo-local
demo-local: install ## the same story with processes on loopback: no root, no cluster, no Redis needed
	@$(PY) examples/demo/on_loopback.py $(ARGS)
