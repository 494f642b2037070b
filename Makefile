# Every target makes its own set-up in .venv; nothing but Python 3.11 or later has to be there.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.PHONY: help demo run test coverage check docs faults faults-short bench bench-short clean
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # every process would compile all it imports: twice the time to start

help:  ## Say what there is.
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: $(READY)  ## Send 1,000 and more real payloads through the shipped pipelines, and show what arrived.
	$(BIN)/siftbell demo $(ARGS)

run: $(READY)  ## Start everything on this machine; Ctrl-C ends it.
	$(BIN)/siftbell run $(ARGS)

# In the order of their folders, and not by size: tests/e2e, which waits most of the time, does so beside others and not at the end.
test: $(READY)  ## Run the tests. Brokers that are missing are skipped by name; with CI=true they fail.
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

coverage: $(READY)  ## The same, counting the lines and branches that the tests reach, in every process they start; takes half as long again.
	rm -f .coverage .coverage.*
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term --cov-fail-under=95 $(ARGS)

faults: $(READY)  ## Break everything there is under load, on every broker, and account for each message; takes an hour or more.
	$(BIN)/python tests/faults run $(ARGS)

faults-short: $(READY)  ## The same with a few faults of each broker, drawn by a seed; takes three minutes.
	$(BIN)/python tests/faults run --pick 3 --count 600 --seconds 3 --scale 0.15 --patience 60 --jobs 2 $(ARGS)

BENCHED := .ci/packages redis-server redis-server rabbitmq-server rabbitmq-server pg_ctlcluster postgresql \
	prometheus-alertmanager prometheus-alertmanager wrk wrk gcc gcc

bench: $(READY)  ## Measure Siftbell against its yardsticks, side by side, and write down the ratios; needs an idle machine.
	@$(BENCHED)
	PYTHONPATH=tests/faults $(BIN)/python -m benchmarks --write $(ARGS)

bench-short: $(READY)  ## The guarded measures, small; fails where a ratio is below 70 % of the recorded one.
	@$(BENCHED)
	PYTHONPATH=tests/faults $(BIN)/python -m benchmarks --short $(ARGS)

check: $(READY)  ## Format, lint, types, import contracts, generated files, examples.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy docs/generate.py
	$(BIN)/mypy tests/faults
	MYPYPATH=tests/faults $(BIN)/mypy benchmarks
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/siftbell check --strict configs
	$(BIN)/siftbell test --quiet configs
	$(BIN)/check-jsonschema --schemafile docs/siftbell.schema.json configs/*.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

docs: $(READY)  ## Write the plugin pages, the settings table and the JSON Schema anew from the code.
	$(BIN)/python docs/generate.py

clean:  ## Remove what the other targets made; the data directory .siftbell stays.
	rm -rf .venv .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find pipeline producers filters consumers tests docs examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Siftbell needs Python 3.11 or later; none was found. Say which with make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv \
		|| echo "uv could not be installed; going on with pip, which takes longer"
	@if $(BIN)/python -m uv --version >/dev/null 2>&1; then \
		UV_PYTHON_DOWNLOADS=never $(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e '.[all]' --group dev; \
	else \
		$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && $(BIN)/python -m pip install --quiet -e '.[all]' --group dev; \
	fi
	@touch $@
