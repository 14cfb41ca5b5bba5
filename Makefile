# The commands of this checkout; `make help` lists them. CI runs check and test, as a person does.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installs into one .venv at a time would harm each other.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PORT ?= 8000
STORE ?=
# Test processes; a file's tests stay in one, so that each starts its servers once.
JOBS ?= 2
# Kept outside the tree, so that a fresh clone is quick: the MinIO build, npm packages, torch's wheels.
CENOTE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cenote
export CENOTE_CACHE

# Where `make sample-study` works, and goes on.
STUDY ?= $(CENOTE_CACHE)/sample-study

BIN := .venv/bin
CENOTE = $(BIN)/cenote $(if $(STORE),--store '$(STORE)')
SETUP := pyproject.toml constraints.txt infra/setup/venv

.PHONY: help
help: ## this list
	@echo "cenote: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.run ## .venv/ with what renders and serves (no torch), from pyproject.toml and constraints.txt

.PHONY: run
run: .venv/.run tiler/static/vendor/.made ## sample Earth: render, publish, serve  [PORT=8000] [STORE=dir or s3://bucket/prefix]
	$(CENOTE) sample
	$(CENOTE) serve --port $(PORT)

.PHONY: test
test: .venv/.dev tiler/static/vendor/.made ## every test; fetches torch and builds MinIO the first time  [ARGS=pytest's] [JOBS=2]
	$(BIN)/python infra/minio/minio.py path
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-fast
test-fast: .venv/.dev tiler/static/vendor/.made ## the quick loop, under a minute: no clusters, object stores, real files  [ARGS=]
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not slow and not cluster and not s3 and not realdata and not browser" $(ARGS)

.PHONY: bench
bench: .venv/.dev ## ours against real peers on the same files, under 10 minutes; the first time makes data and environments (22 GB)
	$(BIN)/python infra/minio/minio.py path >/dev/null
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-full
bench-full: .venv/.dev ## the same with longer rounds and more of them, under 45 minutes
	@$(MAKE) bench ARGS='--full --minutes 40 $(ARGS)'

.PHONY: bench-layouts
bench-layouts: .venv/.dev ## chunks, shards, codecs, packing, levels, blocks against others, in memory, under 10 minutes  [ARGS=]
	$(BIN)/python -m tests.bench.layouts $(ARGS)

.PHONY: study-frk
study-frk: .venv/.dev ## a published map of XCO2 against eight real TCCON stations, into infra/reports/; seconds, needs the real files
	$(BIN)/python -m tests.products.xco2_global.frk_study

.PHONY: sample-study
sample-study: .venv/.dev ## the sample Earth's XCO2 at half a degree: written, learned, rendered, scored; hours, 10 GB  [STUDY=dir] [ARGS=]
	$(BIN)/python -m tests.products.xco2_global.sample_study $(STUDY) $(ARGS)

.PHONY: soak-memory
soak-memory: .venv/.dev ## a million random requests, an hour or so: does a server keep its bound?  [ARGS='--minutes 10']
	$(BIN)/python -m tests.tiler.load $(ARGS)

.PHONY: check
check: .venv/.dev ## ruff, format, mypy --strict, import-linter, constraints; changes nothing, says all before it fails
	@failed=; for what in "ruff check ." "ruff format --check ." mypy "lint-imports --no-logo" \
		"python infra/setup/constraints.py check"; do \
		echo "$(BIN)/$$what"; $(BIN)/$$what || failed="$$failed '$$what'"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

.PHONY: format
format: .venv/.dev ## ruff's formatter and safe fixes, in place
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lock
lock: .venv/.dev ## new versions into constraints.txt (then: make test)
	$(BIN)/python infra/setup/constraints.py write
	$(MAKE) setup

.PHONY: minio
minio: .venv/.run ## a real MinIO on loopback for local testing; prints the environment to use, stops on Ctrl-C  [MINIO_PORT=]
	@$(BIN)/python infra/minio/minio.py serve $(if $(MINIO_PORT),--port $(MINIO_PORT))

.PHONY: assets
assets: .venv/.run ## the map page's libraries and coastlines into tiler/static/vendor/, checked against their sha512
	$(BIN)/python infra/setup/assets.py
	@touch tiler/static/vendor/.made

.PHONY: clean
clean: ## removes .venv/, caches and vendored assets; leaves the store .cenote/ and $(CENOTE_CACHE)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis tiler/static/vendor dist build
	find services models tiler tests infra -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: $(SETUP)
	infra/setup/venv run
	@touch $@

.venv/.dev: $(SETUP)
	infra/setup/venv dev
	@touch .venv/.run $@

tiler/static/vendor/.made: infra/setup/assets.json infra/setup/assets.py | .venv/.run
	@$(MAKE) assets
