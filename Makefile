# The verbs of irrepc. `make demo` and `make test` need python3 (>= 3.11) and make; everything else they install.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# JOBS processes share the cores: one thread each, and a test of threads asks for its own.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help venv demo test check lint generated wheel bench gpu sizes clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

venv: $(STAMP) ## create .venv with irrepc and all it is tested with, at the versions of .ci/constraints.txt

demo: $(STAMP) ## the main job: generate, prove, train on ethanol, run dynamics, write a report
	@$(BIN)/irrepc demo

test: lint ## ruff, mypy and every test
	@$(TEST) -n $(JOBS) --dist loadscope

check: lint ## ruff, mypy and the fast tests
	@$(TEST) -n $(JOBS) --dist loadscope -m "not slow and not gpu"

lint: $(STAMP) ## ruff and mypy alone
	@$(BIN)/ruff check .
	@$(BIN)/mypy

generated: $(STAMP) ## write the committed shelf anew; then read the diff
	@$(BIN)/irrepc generate --shelf

wheel: $(STAMP) ## build the source archive, and from it the wheel, into dist/
	@$(BIN)/python -m build --no-isolation

bench: $(STAMP) ## time the kernels against the roofline and the installed peers
	@$(BIN)/irrepc bench

gpu: $(STAMP) ## on a computer with an NVIDIA GPU: check the CUDA kernels, time them and the installed peers
	@$(BIN)/python benchmarks/gpu.py --write

sizes: ## lines per file and per floor
	@find irrepc templates tests examples \( -name '*.py' -o -name '*.jinja' \) | sort | xargs wc -l | awk \
		'$$2 != "total" { print; split($$2, part, "/"); floor = part[1]; if (part[1] == "irrepc") floor = floor "/" part[2]; \
		sum[floor] += $$1 } END { print "per floor"; for (f in sum) printf "%7d %s\n", sum[f], f | "sort -k2" }'

clean: ## remove what building and testing leave behind; .venv stays
	@rm -rf build dist demo-report .pytest_cache .mypy_cache .ruff_cache
	@find irrepc tests examples templates generated -name __pycache__ -prune -exec rm -rf {} +

# Runs again only when what is to be installed has changed. pip's own options can be given through its PIP_… variables.
$(STAMP): pyproject.toml .ci/constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: got no '$(PYTHON)'; expected Python >= 3.11; do: make PYTHON=<path to it>" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("make: got Python %d.%d from $(PYTHON); expected >= 3.11; do: make PYTHON=<path to a newer one>" % v[:2])'
	@echo "making $(VENV) (a few minutes the first time: torch is large)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -c .ci/constraints.txt -e '.[test]'
	@touch $@
