# Everything a newcomer, a developer or a build machine calls. `make` alone says what there is.

BIN = .venv/bin
SOURCES = service tests demo fuzz deploy deploy/image-test $(wildcard bench)
PORT = 8080
FUZZ_S = 600

.PHONY: help setup run demo test lint format image-test bench fuzz nightly soak clean

help:
	@echo "make setup       .venv with the package, and mtr-packet, where they are missing"
	@echo "make run         set up and serve on http://127.0.0.1:8080"
	@echo "make demo        set up and serve a simulated internet there; PORT=8081 serves it elsewhere"
	@echo "make test        set up, lint, check types, run the tests"
	@echo "make lint        ruff and mypy alone"
	@echo "make format      let ruff rewrite what it can"
	@echo "make image-test  build the container image and try it (as root; Debian)"
	@echo "make bench       measure against peers (as root; Debian); ONLY=name runs one row"
	@echo "make fuzz        look for bytes that break a promise, FUZZ_S=600 seconds per target; ONLY=name fuzzes one"
	@echo "make nightly     the state machines of the tests for longer, some minutes"
	@echo "make soak        10,000 traces in the simulated internet, and what is left behind"
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

fuzz: setup
	@scripts/setup fuzz
	@exec $(BIN)/python -m fuzz --seconds $(FUZZ_S) $(ONLY)

nightly:
	@scripts/setup test
	$(BIN)/pytest -m nightly --hypothesis-profile=nightly --timeout=0

soak: setup
	@exec $(BIN)/python -m bench.soak

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf fuzz/crashes
	find service tests fuzz -name __pycache__ -type d -prune -exec rm -rf {} +
