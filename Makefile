# make demo   set up, then the whole workflow on generated data; ends with scores and the report's path
# make test   set up, then every check and test
# make check  set up, then lint, types and the fast unit tests, for the daily work
# make docs   the documentation's site, into site/html
# make setup  everything into .venv; clean removes what was made, except .venv

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
STAMP := .venv/.complete
DOCS_STAMP := .venv/.docs
# A worker takes a file at a time: tests/scheduling.py, which tests/conftest.py brings in.
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
# Byte code is written: a run starts some hundred processes, which would compile the package each.
export PYTHONDONTWRITEBYTECODE :=
# pip would say after each call that there is a newer pip.
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check docs setup lint style types tests fast-tests clean

demo: setup
	@snakemake --cores all all

# mypy takes one core and half a minute. Style runs beside it, and after that the tests.
test: setup
	$(MAKE) --jobs 2 style types tests

check: setup
	$(MAKE) --jobs 2 style types fast-tests

lint: style types

style: setup
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	snakemake --lint

types: setup
	mypy

tests: setup
	$(PYTEST)

fast-tests: setup
	$(PYTEST) -m "not slow" tests/unit

# Strict: a link or an anchor that leads nowhere, or an interface that is gone, fails.
docs: $(DOCS_STAMP)
	python tools/site_pages.py
	zensical build --strict
	@echo "Site: $(CURDIR)/site/html/index.html"

$(DOCS_STAMP): $(STAMP) requirements-docs.lock
	pip install --quiet --no-deps -r requirements-docs.lock
	touch $@

setup: $(STAMP)
	@[ "$(MAKECMDGOALS)" != setup ] || \
	    echo "next: make demo, or . .venv/bin/activate and then snakemake --cores all all"

$(STAMP): requirements.lock pyproject.toml setup.sh
	@PYTHON=$(PYTHON) sh ./setup.sh
	@touch $@

clean:
	rm -rf results .snakemake site .cache .pytest_cache .mypy_cache .ruff_cache
