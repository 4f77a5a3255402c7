# Needs git, make, Python 3.10 or newer, and apt where a package is missing; root, but for help, setup
# of single parts, lint and functional. What is set up goes to the cache folder, once.
PYTHON ?= python3
CACHE := $(or $(SALTEXT_LVS_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/saltext-lvs)
DEV := $(CACHE)/dev/bin/python
LEVELS := lint unit golden functional install-check kernel integration

.DEFAULT_GOAL := help
.PHONY: help python setup for-the-lab demo lab test $(LEVELS) bench soak clean

help:
	@echo 'make demo           the cluster of the README in the lab, step by step (root)'
	@echo 'make lab            a shell in the lab, with the cluster up (root)'
	@echo 'make test           all levels of tests, and a count (root)'
	@echo 'make LEVEL          one of them: $(LEVELS)'
	@echo 'make bench          the measures of docs/performance.md, in twenty minutes; build/bench.json (root)'
	@echo 'make soak           fifty failovers, and forty incidents while what tells of them is killed (root)'
	@echo 'make setup          what these need, in $(CACHE); they do it themselves'
	@echo 'make clean          remove what builds and tests leave in the checkout'
	@echo
	@echo 'PYTHON=...          the Python to use, 3.10 or newer (now $(PYTHON))'
	@echo 'SALTEXT_LVS_CACHE   the cache folder; remove it to be rid of all that was set up but packages'

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo 'needs Python 3.10 or newer: make PYTHON=/path/to/python3 ...' >&2; exit 1; }

setup: python
	@$(PYTHON) -m tools.prepare

demo: for-the-lab
	@$(DEV) -m tests.lab run -- $(DEV) -m tests.demo

lab: for-the-lab
	@$(DEV) -m tests.lab shell

for-the-lab: python
	@$(PYTHON) -m tools.prepare dev salt-3008 wheels packages lab

test: python
	@$(PYTHON) -m tools.levels

$(LEVELS): python
	@$(PYTHON) -m tools.levels $@

bench: for-the-lab
	@$(DEV) -m tests.lab run -- $(DEV) -m tests.bench $(BENCH)

soak: for-the-lab
	@$(DEV) -m tests.lab run -- $(DEV) -m tests.soak $(SOAK)

clean:
	rm -rf build dist *.egg-info _utils/*.egg-info .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
