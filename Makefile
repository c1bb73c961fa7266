# What a person and CI both call. Everything is installed into .venv, from locked and hashed versions.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH := .venv-bench/.installed

SECONDS ?= 180

.PHONY: run test check bench chaos ptb-suite ptb-examples webhook install format lock clean help

run: install ## the whole on this machine: server, six processes, and a local Telegram where no token is set
	@exec $(BIN)/telequeue up

test: install ## every test; what is missing for them is installed first, or named
	@deploy/install-test-tools.sh
	$(BIN)/pytest -n 2 --dist loadfile

check: install ## formatter, linter, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install $(BENCH) ## QUICK=1 for a minute instead of twenty: the same work for us and for others; writes docs/benchmarks.md
	.venv-bench/bin/python -m tests.benchmarks $(if $(QUICK),--quick)

chaos: install ## SECONDS=600 SEED="1 2 3": six processes, broken at random, judged by the stand-in; then the figures
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED)

ptb-suite: install ## python-telegram-bot's own tests, with our bot in the place of the one they test
	$(BIN)/python -m tests.ptb_suite

ptb-examples: install ## python-telegram-bot's own example bots, unmodified, on six processes, one of which is killed
	$(BIN)/python -m tests.ptb_suite.examples

webhook: install ## 1,000 updates a second to the webhook for 30 s: lost, handled twice, and how soon they are answered
	$(BIN)/python -m tests.chaos.webhook

install: $(INSTALLED) ## the venv

$(INSTALLED): requirements-dev.lock pyproject.toml deploy/create-venv.sh
	@PYTHON="$(PYTHON)" deploy/create-venv.sh
	@touch $@

$(BENCH): tests/benchmarks/requirements.lock tests/benchmarks/create-venv.sh
	@tests/benchmarks/create-venv.sh
	@touch $@

format: install ## the code, as check wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install ## resolve the newest versions anew, for every platform
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --upgrade \
		pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		-c requirements.lock pyproject.toml --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		-c requirements.lock pyproject.toml tests/benchmarks/requirements.in -o tests/benchmarks/requirements.lock

clean: ## away with the venv and all caches; .telequeue/, the data of `run`, stays
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
