PYTHON ?= python3
BIN := .venv/bin
TRACKING ?= sqlite:///mlflow.db
STACK := $(BIN)/python -m flows.stack
OPTIONS ?=
EXTRAS ?= demo,dev,nets,neuro,postgres,s3,spark
comma := ,
INSTALLED := .venv/.installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: help demo up status down package test test-service coverage bench lint ui clean

help:  ## list what can be made
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv: $(INSTALLED)  ## the virtual environment, from constraints.txt (EXTRAS=demo: without PyTorch, Spark and tests)

$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: .venv  ## PCA of MNIST and of a generated 2,000 x 200,000 matrix, as tracked flows
	$(BIN)/python -m flows.demo

up: .venv  ## start Prefect, MLflow, a worker and Dask on this machine (SPARK=1: Spark too; OPTIONS="--host ...")
	$(STACK) up --config conf/stack.yaml $(if $(SPARK),--spark) $(OPTIONS)

status: .venv  ## whether each of them answers
	$(STACK) status --config conf/stack.yaml $(OPTIONS)

down: .venv  ## end what `make up` started; the data stay
	$(STACK) down --config conf/stack.yaml $(OPTIONS)

package: .venv  ## dist/lazypipe.zip, the library to ship to Spark's workers (--py-files)
	$(BIN)/python -m lazypipe.shipping dist/lazypipe.zip

test: .venv  ## every test but those of servers and faults (those of Spark need Java 17 or 21)
	$(BIN)/python -m pytest -m 'not service' -n auto --maxprocesses 4 --dist loadfile

test-service: .venv  ## tests with real servers: schedules, faults, cut links
	$(BIN)/python -m pytest -m service --timeout 900 --timeout-method signal

coverage: .venv  ## which lines of lazypipe, jobs and flows `make test` does not run
	$(BIN)/python -m pytest -m 'not service' -n auto --maxprocesses 4 --dist loadfile --cov --cov-report=term:skip-covered

bench: .venv  ## lazypipe beside its peers: hours, and the table of README.md (QUICK=1: small, in minutes)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench.py $(if $(QUICK),--quick)

lint: .venv  ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: .venv  ## browse the experiments
	$(BIN)/mlflow ui --backend-store-uri $(TRACKING)

clean:  ## remove what runs and tools left behind; data/, mlflow.db and .venv stay
	rm -rf results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache spark-warehouse metastore_db
	find . -path ./.venv -prune -o -name __pycache__ -type d -print | xargs rm -rf
