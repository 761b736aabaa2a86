# make demo   set up, then the whole workflow on generated data; ends with the report's path
# make test   set up, then every check and test
# make check  set up, then lint, types and the fast unit tests, for the daily work
# make setup  everything into .venv; clean removes what was made, except .venv

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
STAMP := .venv/.complete
# A worker takes a file at a time: tests/scheduling.py, which tests/conftest.py brings in.
# Byte code is written, as tests start some hundred processes.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test check setup lint clean

demo: setup
	snakemake --cores all all
	@echo "Report: $(CURDIR)/results/report/index.html"

test: setup lint
	$(PYTEST)

check: setup lint
	$(PYTEST) -m "not slow" tests/unit

lint: setup
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	mypy
	snakemake --lint

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml setup.sh
	PYTHON=$(PYTHON) sh ./setup.sh
	touch $@

clean:
	rm -rf results .snakemake .pytest_cache .mypy_cache .ruff_cache
