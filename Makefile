# Two commands are all you need: `make demo` and `make test`. Both set up .venv first, once.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
SNAKEMAKE := $(RUN) snakemake --cores all
PYTEST := $(RUN) pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
LOCK := uv pip compile --universal --python-version 3.11 --no-emit-index-url --generate-hashes --quiet \
	--custom-compile-command "make lock" --extra workflow --extra dev --extra docs --extra bench

# Studies of claims that two cores settle: files of config/, each laid over those before it.
STUDIES := $(addprefix digits/,digits_claims digits_rates digits_steps same_objective digits_guidance digits_brightness \
	digits_tint jit)

CONFIG := config/digits.yaml

.PHONY: help setup demo studies paper-figures test test-deep test-slurm test-browser test-all docs cell-gpu bench bench-gpu lint lock

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 — /p' $(MAKEFILE_LIST)

setup: $(READY) ## set up .venv, which the others do by themselves; then: . .venv/bin/activate

demo: $(READY) ## the whole pipeline on handwritten digits; ends with the answer and the path of the report
	@TARGETWISE_COMMAND="make demo" TARGETWISE_FOLLOW=1 \
		$(SNAKEMAKE) --configfile config/digits.yaml --quiet host -- all
	@echo
	@$(RUN) targetwise answer --configfile config/digits.yaml

studies: $(READY) ## the claims of the literature on digits, and docs/findings.md from what comes out; some hours
	@set -e; for study in $(STUDIES); do \
		TARGETWISE_FOLLOW=1 $(SNAKEMAKE) --quiet host --configfile $$(printf "config/%s.yaml " $$(echo $$study | tr / " ")) -- all; \
	done
	$(RUN) python findings/keep.py $(notdir $(STUDIES))

paper-figures: $(READY) ## a report's figures as PDF: make paper-figures CONFIG=config/digits.yaml
	$(RUN) targetwise figures --configfile $(CONFIG)

test: $(READY) lint ## format, lint, types, unit tests, one tiny real run
	$(PYTEST) -m "not deep and not slow and not slurm and not browser"

test-deep: $(READY) ## whole studies that are killed, changed or kept by DVC on the way; a quarter of an hour
	$(PYTEST) -m "deep and not slow"

test-slurm: $(READY) ## the cluster section on a private SLURM, through everything that goes wrong (needs slurm-wlm)
	$(RUN) pytest tests/slurm -m "not slow"

test-browser: $(READY) ## MLflow's page and the report in a real browser, with screenshots in results/screenshots (needs chromium)
	$(RUN) pytest tests/browser

test-all: $(READY) lint ## everything, what takes over a minute included (real CIFAR-10, Inception, R, long cluster scenarios)
	$(RUN) pytest

docs: $(READY) ## the documentation as a site that opens, and can be searched, without a network
	@$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo "$(CURDIR)/site/index.html"

cell-gpu: ## one cell from data to number without Snakemake: make cell-gpu CELL=reference@epsilon-small-42
	PYTHONPATH=src $(PYTHON) workflow/scripts/cell.py $(CELL)

bench: $(READY) ## our loops against others on this CPU; keep it free for half an hour or more
	$(RUN) python benchmarks/run.py --device cpu
	$(RUN) python benchmarks/document.py

bench-gpu: ## the same on a GPU, with the packages that PYTHON has; then, anywhere: python benchmarks/document.py
	PYTHONPATH="src$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) benchmarks/run.py --device cuda

lint: $(READY)
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) snakefmt --check Snakefile rules
	$(RUN) mypy
	$(RUN) snakemake --lint

lock: $(READY) ## compile requirements.lock again from pyproject.toml
	$(RUN) $(LOCK) pyproject.toml -o requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; try make PYTHON=python3.12 …")'
	@echo "setting up $(VENV) (once, some minutes, 5.5 GB with the CUDA libraries)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
