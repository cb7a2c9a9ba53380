# The README's commands. Everything is installed into .venv; stamp files in it remember what is done,
# so that a second run installs nothing and a change in csrc/ or pyproject.toml only rebuilds.

PYTHON ?= python3
TORCH ?= torch>=2.10

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PACKAGE_SOURCES := setup.py pyproject.toml CMakeLists.txt $(shell find csrc -type f)
CPP_SOURCES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

.PHONY: demo test test-oldest audit fuzz bench bench-save bench-quick gpu lint types format clean
.DELETE_ON_ERROR:

demo: $(STAMPS)/package
	$(BIN)/amfast run --classes all --batch-embeddings 64 --outdir runs

test: $(STAMPS)/test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --timeout 900 --timeout-method thread \
	  --cov --cov-fail-under=90

# Ops, engine, files and commands on the oldest versions that pyproject.toml admits, torch 2.10 among
# them: a quarter of an hour on one core and 8 GB of disk, so it is not part of .ci/run.
test-oldest:
	PIP_CONSTRAINT=$(CURDIR)/tests/oldest.txt $(MAKE) VENV=.venv-oldest .venv-oldest/stamps/test
	.venv-oldest/bin/python -m pytest tests/ops tests/optimize tests/generators tests/classifiers tests/runs tests/weights \
	  tests/exchange tests/images tests/study tests/cli tests/test_*.py \
	  --deselect tests/test_kernels.py --deselect tests/study/test_page.py

# What is known to be unsafe in the test environment; asks the advisory database of the package index.
audit: $(STAMPS)/test
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit
	.venv-audit/bin/pip-audit --skip-editable --progress-spinner off \
	  --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# 100,000 bad inputs: docs/reliability.md.
fuzz: $(STAMPS)/test
	$(BIN)/python -m tests.fuzz.campaign --inputs 102000 --seed 0

bench: $(STAMPS)/test
	mkdir -p build
	$(BIN)/python -m pytest bench -o python_files='bench_*.py' --benchmark-columns=min,median,iqr,rounds \
	  --benchmark-json=build/bench.json
	$(BIN)/python -m bench.report build/bench.json

# Keep what 'make bench' measured last: later runs on this device are compared with it.
bench-save: $(STAMPS)/test
	$(BIN)/python -m bench.report build/bench.json --save

# The ratios of bench/results/quick.json, in minutes and without a GPU.
bench-quick: $(STAMPS)/test
	$(BIN)/python -m bench.quick

# On a machine with a GPU, with the Python and torch that are installed there; nothing is fetched.
gpu:
	$(PYTHON) -m bench.gpu

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)

types: $(STAMPS)/dev
	$(BIN)/mypy

format: $(STAMPS)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

clean:
	rm -rf $(VENV) .venv-oldest .venv-audit build *.egg-info amfast/*.so .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*

$(STAMPS)/venv:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	@mkdir -p $(STAMPS)
	@touch $@

# torch comes first: the kernels are built against it, and an isolated build would fetch a second one.
$(STAMPS)/build-tools: $(STAMPS)/venv
	@echo "Installing $(TORCH) and the build tools: some gigabytes the first time, then never again."
	$(PIP) install --quiet '$(TORCH)'
	$(PIP) install --quiet 'setuptools>=77' wheel 'cmake>=3.20'
	@touch $@

# The longer list of extras includes the shorter, so a stamp counts for those before it as well.
$(STAMPS)/package: $(STAMPS)/build-tools $(PACKAGE_SOURCES)
	$(PIP) install --quiet --no-build-isolation -e .
	@touch $@

$(STAMPS)/test: $(STAMPS)/build-tools $(PACKAGE_SOURCES)
	AMFAST_REQUIRE_EXT=1 $(PIP) install --quiet --no-build-isolation -e '.[test]'
	@touch $@ $(STAMPS)/package

$(STAMPS)/dev: $(STAMPS)/build-tools $(PACKAGE_SOURCES)
	AMFAST_REQUIRE_EXT=1 $(PIP) install --quiet --no-build-isolation -e '.[test,dev]'
	@touch $@ $(STAMPS)/test $(STAMPS)/package
