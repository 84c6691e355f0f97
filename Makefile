# The words of this project. `make help` says what each does and about how long it takes on 2 cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup test book pages html pdf smoke study resume bench status check clean rehearse

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

setup: $(VENV)/.ready ## own virtual environment with the exact versions of requirements.lock (about 3 minutes)

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the versions of requirements.lock (about 3 minutes, 2.5 GB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test: setup ## all tests but the slow ones (under 5 minutes)
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2

book: setup ## compute missing records, execute the pages through papermill, build the HTML book (about 5 minutes)
	$(BIN)/snakemake --profile profiles/default
	@$(MAKE) --no-print-directory html

html: setup ## build the HTML book from the executed pages (about 20 seconds)
	$(BIN)/jupyter-book build . --path-output . -W -n --keep-going --quiet
	@echo "the book: $(CURDIR)/_build/html/index.html"

pdf: setup ## the main argument as _build/book.pdf, from the executed pages (needs Chromium or Chrome)
	@$(BIN)/python -m study pdf

smoke: setup ## the whole flow at smoke size, nothing reused (2 minutes; with EVERY=1 every page of the book, 10 minutes)
	$(BIN)/python -m study smoke $(if $(EVERY),--every-page)

study: setup ## compute every run of the grid from nothing into .cache/study, for comparison with results/ (hours, see the status page; resumable)
	@echo "computing the CPU study from nothing; interrupt at any time, the same command continues"
	REPROLIB_RESULTS="$(CURDIR)/.cache/study/results" REPROLIB_CACHE="$(CURDIR)/.cache/study" $(BIN)/snakemake --profile profiles/default

resume: setup ## continue after a crash of Snakemake itself
	$(BIN)/snakemake --unlock --profile profiles/default
	@$(MAKE) --no-print-directory book

bench: setup ## speed and memory as ratios, measured side by side, and memory at true size, counted (about an hour)
	$(BIN)/python study/benchmarks/step.py
	$(BIN)/python study/benchmarks/evaluate.py
	$(BIN)/python study/benchmarks/importance.py
	$(BIN)/python study/benchmarks/probes.py
	$(BIN)/python study/benchmarks/memory.py

rehearse: setup ## every step of the GPU playbook at toy size on this CPU (about 10 minutes)
	$(BIN)/python -m study.gpu run olmo-1b olmo-1b-cost olmo-7b olmo-7b-cost smollm2 smollm2-semeval smollm2-semeval-rest olmo-1b-0724 olmo-7b-0724 olmo-1b-semeval olmo-7b-semeval --rehearse --workers 2 --minutes 30

status: setup ## what exists, what is missing, what failed
	@$(BIN)/python -m study status

check: setup ## style, types and the order of imports (about 2 minutes at first, seconds after that)
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter
	$(BIN)/mypy

clean: ## remove what can be made again (not the records)
	rm -rf _build results/notebooks results/logs .pytest_cache .ruff_cache .mypy_cache .snakemake .cache/smoke
