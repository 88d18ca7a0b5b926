PYTHON ?= python3
BIN := .venv/bin
PORT ?= 3000
DATA ?= data

.PHONY: help install demo examples serve test test-long lint clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed ## build .venv with pinned versions

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline]' --group dev
	@touch $@

demo: install ## fine-tune on the sample tickets, serve, ask with the cohere SDK
	$(BIN)/python scripts/demo.py

examples: install ## run the four hosted notebooks in full on the data sets in DATA=folder, see docs/examples.md
	$(BIN)/python scripts/examples.py --data "$(DATA)"

serve: install ## start the server on 127.0.0.1:$(PORT)
	BENTOML_DO_NOT_TRACK=True $(BIN)/bentoml serve --host 127.0.0.1 --port $(PORT) --timeout-graceful-shutdown 30

test: install ## run the suite, in one process more than there are cores, as much of it waits
	processes=$$($(BIN)/python -c "import os; print(min(8, os.cpu_count() + 1))"); \
	$(BIN)/python -m pytest --numprocesses $$processes --dist loadscope --no-loadscope-reorder

test-long: install ## the tests that take many minutes: servers killed again and again
	$(BIN)/python -m pytest -m long

lint: install ## formatting, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

clean: ## remove .venv and the demo's run
	rm -rf .venv runs/demo
