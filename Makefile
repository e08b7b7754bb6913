# One command each. The first one run makes .venv and installs into it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Two at once, each with a thread of its own: most of a test's time is one command's imports. One that dies stays dead:
# its successor would begin with the same test, and hang or die as well.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

.PHONY: help train report test test-quick test-slow check lint audit bench play results release tensorboard
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(READY) ## train with the default configuration; options: make train ARGS="model.batchnorm=true seed=1"
	$(BIN)/python train.py $(ARGS)

report: $(READY) ## the report of the newest run, with every figure and number measured; options: make report ARGS="ckpt_path=..."
	$(BIN)/python analyze.py $(ARGS)

test: lint test-quick ## ruff, mypy and every test not marked slow

test-quick: $(READY)
	$(PYTEST) -m "not slow"

test-slow: $(READY) ## the long tests: kills, faults, fuzzing, the lab report's whole recipe on MNIST, the pages in a real browser
	$(PYTEST) -m slow

check: lint audit ## ruff, mypy, known vulnerabilities, secrets and the tests that need no MNIST
	$(PYTEST) -m "not slow and not mnist"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(READY)
	$(BIN)/python .ci/audit.py

bench: $(READY) ## speed beside the peers and beside busy processes, about 90 minutes; needs MNIST and a trained run
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.busy
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.occlusion
	$(BIN)/python -m benchmarks.attacks --cw
	$(BIN)/python -m benchmarks.readme

play: $(READY) ## the live page of the newest run, to draw on in a browser; trains a network first if there is none
	@ls outputs/*/*/checkpoints/last.ckpt multirun/*/*/checkpoints/last.ckpt 2> /dev/null | grep -q . || $(BIN)/python train.py
	$(BIN)/python analyze.py export=play $(ARGS)

results: $(READY) ## RESULTS.md from nothing, about a day; in parts: make results PART="paper best"
	$(BIN)/python -m benchmarks.results $(PART) $(ARGS)
	$(BIN)/python -m benchmarks.readme

release: $(READY) ## dist/: the wheel, and the report and the live page of the newest run
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python analyze.py hydra.run.dir=dist/report $(ARGS)
	$(BIN)/python analyze.py export=play hydra.run.dir=dist/play $(ARGS)

tensorboard: $(READY) ## open TensorBoard on outputs/ and multirun/, on the next free port
	$(BIN)/python -m cnn_mnist tensorboard

$(READY): pyproject.toml constraints.txt
	if command -v uv > /dev/null; then \
		uv venv --quiet --clear --seed --python $(PYTHON) .venv && \
		uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	fi
	touch $@
