# Everything a newcomer, a developer or a build machine calls. `make` alone says what there is.

BIN = .venv/bin
SOURCES = service tests demo deploy deploy/image-test $(wildcard bench)
PORT = 8080

.PHONY: help setup run demo test lint format image-test bench clean

help:
	@echo "make setup       .venv with the package, and mtr-packet, where they are missing"
	@echo "make run         set up and serve on http://127.0.0.1:8080"
	@echo "make demo        set up and serve a simulated internet there; PORT=8081 serves it elsewhere"
	@echo "make test        set up, lint, check types, run the tests"
	@echo "make lint        ruff and mypy alone"
	@echo "make format      let ruff rewrite what it can"
	@echo "make image-test  build the container image and try it (as root; Debian)"
	@echo "make bench       measure against peers (as root; Debian); ONLY=name runs one row"
	@echo "make clean       remove .venv and everything built"

setup:
	@scripts/setup run

run: setup
	@exec $(BIN)/tracerouted serve

demo: setup
	@exec $(BIN)/python -m demo --port $(PORT)

test:
	@scripts/setup test
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

image-test: setup
	@scripts/setup image
	$(BIN)/python deploy/image-test

bench:
	@scripts/setup bench
	@exec $(BIN)/python -m bench $(ONLY)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find service tests -name __pycache__ -type d -prune -exec rm -rf {} +
