# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
python := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/src:$(CURDIR)
sudo := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
pytest := $(python) -m pytest -q

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

.PHONY: env env-run
env-run:
	@SUDO=$(sudo) scripts/setup.sh run
env:
	@SUDO=$(sudo) scripts/setup.sh dev

.PHONY: demo demo-down
demo: env-run ## the main job, whole, on a host that is made on this machine
	@$(python) scripts/demo.py up
demo-down: env-run ## remove what the demo made, and nothing else
	@$(python) scripts/demo.py down

.PHONY: test lint test-unit test-integration test-more test-roles test-faults
test: ## everything that CI runs: lint, unit and render tests, real hosts
	@scripts/test.sh lint unit integration
lint: ## formatting, types, Ansible's production profile, shell
	@scripts/test.sh lint
test-unit: ## unit and render tests, without hosts
	@scripts/test.sh unit
test-integration: ## the main job on real hosts, each behaviour once
	@scripts/test.sh integration
test-more: ## every job of the pipeline, data as a whole, several hosts, example systems (long)
	@scripts/test.sh more
test-roles: ## a smoke of every role's scenario on one host
	@scripts/test.sh roles
test-faults: ## every fault point x {kill, error, hang} x {before, after} (long)
	@scripts/test.sh faults

.PHONY: molecule
molecule: env ## every role's scenario on hosts of its own (make molecule ROLE=edge for one)
	@$(python) -m tests.molecule run $(ROLE)

.PHONY: docs bench bench-main bench-ci bench-hosts bench-data bench-watch
docs: env ## regenerate the variable reference from the argument specs
	@$(python) scripts/generate_variables.py
bench: bench-main bench-ci bench-hosts bench-data bench-watch ## every benchmark
bench-data: env ## the bars of backups and restores (build/bench-data.json); ONLY=word for a part, long
	@$(python) -m tests.bench.data
bench-main: env ## the bars of the main job, each with its comparison (build/bench-main.json)
	@$(python) -m tests.bench.main
bench-ci: env ## the bars of the way from a push to production (build/bench-ci.json)
	@$(python) -m tests.bench.ci
bench-hosts: env ## the bars of roles, hardening, several hosts, certificates and edges (build/bench-hosts.json)
	@$(python) -m tests.bench.hosts
bench-watch: env ## the bars of the watch, the ledger and the alert rules (build/bench-watch.json)
	@$(python) -m tests.bench.watch
