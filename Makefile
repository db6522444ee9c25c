# Everything runs in .venv, which the first command makes and fills.
#   make reproduce   run chapter 00: a small network unlearns a shortcut because of a sentence
#   make test        all checks, the same as CI
#   make book        build the book into _build/html
#   make bench       measure every step beside its peer, and write the page of benchmarks
#   make pdf         print the built book into _build/book.pdf (needs Chromium)
#   make course      write the students' versions of the assignments into build/course

# A Python 3.11-3.13; name another with `make PYTHON=python3.12 ...`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/ready
OUT ?= results/reproduce
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The chapters' networks are small: one thread each is as fast, and robust on a busy machine.
export OMP_NUM_THREADS ?= 1
export PYTHONWARNINGS ?= ignore

.PHONY: env reproduce test test-fast book pdf bench release course notebooks colab clean
.DELETE_ON_ERROR:

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Setting up .venv (once; about two minutes and 2 GB) ..."
	@$(PYTHON) -m venv --clear .venv || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

reproduce: $(READY)
	@$(BIN)/lvlmva chapter notebooks/00_lvlm_va_in_ten_minutes.ipynb --out $(OUT)

book: $(READY)
	@$(BIN)/python tools/build_book.py

# A step is a file that measures with the ruler, benchmarks/timing.py.
bench: $(READY)
	@set -e; for step in $$(grep -l 'timing import' benchmarks/*.py); do echo "$$step ..."; $(BIN)/python "$$step"; done
	@$(BIN)/python benchmarks/page.py

pdf: book
	@$(BIN)/python tools/pdf.py

# What a release attaches, into dist/; TAG defaults to this version's.
release: pdf
	@$(BIN)/python tools/release.py $(TAG)

course: $(READY)
	@$(BIN)/python tools/course.py

notebooks: $(READY)
	@$(BIN)/python tools/notebooks.py

test-fast: $(READY)
	@$(BIN)/python -m pytest -q -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python tools/notebooks.py --check
	$(BIN)/python tools/course.py --check
	$(BIN)/python tools/build_book.py
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

colab: $(READY)
	@LVLMVA_COLAB=1 $(BIN)/python -m pytest tests/test_colab.py

clean:
	rm -rf .venv _build dist results book/_static/vendor
