# Everything happens in .venv, which each target sets up as far as it needs: all you need is
# Python 3.10 or newer with venv, make and a C compiler. What is up to date is not done again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Pass options on: make demo ARGS="--nodes 5", make test ARGS="-k embedded"
ARGS ?=

# Processes for the tests: three on two cores, as most tests wait more than they work. 0 is for none but
# its own, for a debugger, or for a machine that is busy besides.
JOBS ?= 3

# What `make sanitize` looks for: memory (AddressSanitizer, UBSan), debug (our own checks), threads
# (ThreadSanitizer).
KIND ?= memory debug threads

# The list is kept in a file too, which changes when a module comes or goes.
COMPILED := $(shell find src -name '*.pyx' -o -name '*.pxd' | sort)
BUILT := $(VENV)/.built
LISTED := $(VENV)/.sources

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help bench demo test sanitize fuzz model planted proof instructions lint format build
.PHONY: check-package clean FORCE

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(BUILT)  ## watch elections on real flight events, while nodes join, fail and leave
	@$(BIN)/multielect demo $(ARGS)

bench: $(BUILT) $(VENV)/.group-peers  ## measure what it costs, beside the server's limit and others (ARGS=--quick)
	@$(BIN)/multielect bench $(ARGS)

test: $(BUILT) $(VENV)/.group-test $(VENV)/.servers  ## run the tests, on real servers (ARGS="--servers all")
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

sanitize: $(BUILT) $(VENV)/.group-test  ## run tests under gcc's sanitizers (KIND=memory, debug or threads; all if not given)
	@for kind in $(KIND); do PYTHON=$(BIN)/python tests/sanitize/run $$kind $(ARGS) || exit; done

fuzz: $(VENV)/.group-build $(VENV)/.group-test $(BUILT)  ## fuzz the core under AddressSanitizer (clang or gcc; ARGS=--help)
	@$(BIN)/python -m proof.fuzz $(ARGS)

model: $(VENV)/.created  ## check the model of the lease protocol with spin (two minutes; ARGS=--long)
	@$(BIN)/python -m proof.model $(ARGS)

proof: $(BUILT) $(VENV)/.group-test  ## all of it, for about an hour: model, simulation, fuzzing, chaos, soak (ARGS=--quick)
	@$(BIN)/python -m proof $(ARGS)

planted: $(BUILT) $(VENV)/.group-test  ## plant faults in copies of the code and see that the tests find them (ARGS=NAME)
	@$(BIN)/python -m proof.planted $(ARGS)

instructions: $(BUILT)  ## count the core's instructions a lease, with valgrind (ARGS=--keep)
	@$(BIN)/python -m benchmarks.instructions $(ARGS)

lint: $(BUILT) $(VENV)/.group-lint  ## ruff, mypy and cython-lint, changing nothing
	@echo "ruff: style and mistakes"
	@$(BIN)/ruff check --quiet
	@echo "ruff: layout"
	@$(BIN)/ruff format --check --quiet || { echo "run 'make format'"; exit 1; }
	@echo "mypy: types"
	@$(BIN)/mypy --no-error-summary
	@echo "cython-lint: the compiled modules"
	@PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint src proof  # it looks for pycodestyle there

format: $(VENV)/.group-lint  ## lay out the code as lint wants it
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

build: $(VENV)/.group-build  ## make dist/: an sdist, and a wheel from that sdist
	@echo "building the sdist, and a wheel from it"
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@ls dist

check-package: build $(BUILT)  ## install the wheel into an empty environment and hold an election there
	@$(BIN)/python tests/packaging/check.py dist

clean:  ## remove everything that make made
	@rm -rf $(VENV) build dist src/*.egg-info .benchmarks .hypothesis
	@rm -rf .mypy_cache .pytest_cache .ruff_cache
	@find src tests -name '__pycache__' -prune -exec rm -rf {} +
	@find src -name '*.so' -delete

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is too old: multielect needs Python 3.10 or newer (make PYTHON=...)"; exit 1; }
	@echo "creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.group-%: $(VENV)/.created pyproject.toml
	@echo "installing what '$*' needs"
	@$(PIP) install --group $*
	@touch $@

# Programs of other releases than the installed ones. What cannot be had here is told, and tests skip.
$(VENV)/.servers: tests/servers.py $(BUILT)
	@echo "bringing the servers that the tests run on"
	@$(BIN)/python -m tests.servers
	@touch $@

$(LISTED): FORCE | $(VENV)/.created
	@echo '$(COMPILED)' | cmp -s - $@ || { find src -name '*.so' -delete; echo '$(COMPILED)' >$@; }

$(BUILT): $(VENV)/.group-build $(LISTED) $(COMPILED) setup.py pyproject.toml
	@echo "compiling the core and installing multielect (the first time takes a while)"
	@$(PIP) install --no-build-isolation --editable '.[cli,embedded]'
	@touch $@
