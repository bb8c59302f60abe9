# Targets set themselves up: a virtual environment in .venv, packages at the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
SPHINX := $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -d build/doctrees .
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile

.PHONY: demo test test-benchmarks dist docs links lint reference evidence clean

demo: .venv/demo
	$(BIN)/invmm-eval demo

test: .venv/dev
	$(PYTEST)

# The scripts in benchmarks/, which `make test` leaves out.
test-benchmarks: .venv/dev
	$(PYTEST) tests/benchmarks

# Source distributions and wheels of the package and of every plugin, in dist/.
dist: .venv/dev
	for project in . plugins/*; do \
	    (cd $$project && $(CURDIR)/$(BIN)/python -m hatchling build --directory $(CURDIR)/dist) || exit 1; done

# The documentation site, in build/site. A warning is an error: a broken link, a page in no table of contents.
docs: .venv/docs
	$(SPHINX) build/site -b html

# The links to other sites, which needs the network.
links: .venv/docs
	$(SPHINX) build/links -b linkcheck

lint: .venv/dev
	PATH="$(CURDIR)/$(BIN):$$PATH" pre-commit run --all-files

# Train the reference model anew: about an hour on 2 CPU cores.
reference: .venv/dev
	$(INSTALL) --editable ".[reference]"
	$(BIN)/python -m benchmarks.train_reference

# Test what the documents claim: about two hours of one CPU core; a second call makes what is missing in runs/evidence.
evidence: .venv/dev
	$(INSTALL) --editable ".[reference]"
	$(BIN)/python -m benchmarks.evidence

clean:
	rm -rf .venv build demo dist

.venv/demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	touch $@

.venv/dev: .venv/demo
	$(INSTALL) --editable ".[dev]"
	touch $@

.venv/docs: .venv/demo
	$(INSTALL) --editable ".[docs]"
	touch $@
