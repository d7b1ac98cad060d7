# Two commands set up everything: `make demo` and `make test`.
# `make test-slow` and `make check` test more: see CONTRIBUTING.md.
# `make bench` measures speed beside PyTorch, in about a quarter of an hour.
# `make accelerators` compiles for TPUs and GPUs that need not be there: hours.
# `make pod` rehearses training on a TPU pod on this machine, in some minutes.
# `make demo STATIC=1` also trains a network that is blind to direction in time.

PYTHON ?= python3
RUNS ?= runs/demo
OUT ?= runs/pod
AOT_PYTHON ?= $(shell python3.12 -c '' 2>/dev/null && echo python3.12 \
  || echo $(PYTHON))
BIN := .venv/bin
AOT := .venv-aot
# Compiled networks are kept and found again by later runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/xla
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: demo pod test test-slow check bench accelerators lint format clean

demo: .venv/installed
	$(BIN)/python -m data.stick_figures.prepare --out=$(RUNS)/data
	$(BIN)/python train.py --config=configs/quickstart.py \
	  --config.data.dir=$(RUNS)/data --workdir=$(RUNS)
	$(BIN)/python eval.py --controls --workdir=$(RUNS)
	$(BIN)/python explain.py --workdir=$(RUNS) \
	  --video=$(RUNS)/data/test/high_five/0000.mp4 --out=$(RUNS)/explanation
ifdef STATIC
	$(BIN)/python train.py --config=configs/quickstart.py:static \
	  --config.data.dir=$(RUNS)/data --workdir=$(RUNS)/static
	$(BIN)/python eval.py --controls --workdir=$(RUNS)/static
endif

pod: .venv/installed-dev
	$(BIN)/python -m examples.pod --out=$(OUT) --aot=$(AOT)/bin/python

# A file's tests stay together: they share what takes long to make; the longest
# files begin first.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile \
  --no-loadscope-reorder

# Many programs of a test compile faster than they would be written and read.
test test-slow: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0.3

test: .venv/installed-dev
	$(PYTEST) -m 'not slow and not check'

# What takes longer: real processes, several devices, PyTorch beside us, the
# compilers of accelerators.
test-slow: .venv/installed-slow .venv-aot/installed
	$(PYTEST) -m 'slow and not check'

# What takes hours; stopped, it goes on where it was.
check: .venv/installed-dev
	$(BIN)/python -m tests.check

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.cpu

# Stopped, it goes on where it was.
accelerators: .venv-aot/installed
	$(AOT)/bin/python -m benchmarks.accelerators

lint: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

format: .venv/installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.venv/installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e .[bench]
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
	  pytorchvideo==0.1.5
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e .[dev]
	touch $@

.venv/installed-slow: .venv/installed-dev .venv/installed-bench
	touch $@

# Compilers for accelerators change the devices that JAX looks for: they have an
# environment of their own. Libraries that only a GPU would run are left out.
.venv-aot/installed: setup.py pyproject.toml
	$(AOT_PYTHON) -m venv $(AOT)
	$(AOT)/bin/pip install --quiet --disable-pip-version-check -e .
	jax=$$($(AOT)/bin/python -c 'import jax; print(jax.__version__)') \
	  && $(AOT)/bin/pip install --quiet --disable-pip-version-check \
	  "jax[tpu]==$$jax" "jax-cuda13-plugin==$$jax" "jax-cuda13-pjrt==$$jax"
	touch $@

clean:
	rm -rf .venv .venv-aot .cache build *.egg-info
