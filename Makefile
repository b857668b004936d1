# `make` alone explains itself.
BUDGET ?= auto
DATA ?= auto
DEVICE ?= auto
ONLY ?=
EPOCHS ?=
SEED ?= 0
FRESH ?=
PYTHON ?= python3

# A mistyped option (BUGET=smoke) must not be ignored.
known := BUDGET DATA DEVICE ONLY EPOCHS SEED FRESH PYTHON
given := $(foreach word,$(MAKEOVERRIDES),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))
unknown := $(filter-out $(known),$(given))
ifneq ($(unknown),)
$(error unknown option $(unknown): use $(known))
endif

# Only this environment's own kernel, whatever else is installed for the user.
unexport JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH := 1

py := .venv/bin/python
options := --budget "$(BUDGET)" --data "$(DATA)" --device "$(DEVICE)" --seed "$(SEED)" $(if $(EPOCHS),--epochs "$(EPOCHS)") $(if $(ONLY),--only $(ONLY)) $(if $(filter-out 0,$(FRESH)),--fresh)

.DEFAULT_GOAL := help
.PHONY: help setup run-all status progress test test-browser lab tensorboard bench refresh report format lint clean

help:
	@echo 'make run-all   run every notebook, write plots and results to figures/'
	@echo '               BUDGET=smoke|quick|full   how long to train (default: full on a GPU, quick without)'
	@echo '               DATA=...                  cifar100, cifar10, fashionmnist, synthetic or a folder of class folders'
	@echo '               DEVICE=cpu|cuda|mps       (default: a CUDA GPU where there is one)'
	@echo '               ONLY="01 03"  EPOCHS=3  SEED=1'
	@echo '               FRESH=1                   run again what is unchanged, and from the first epoch'
	@echo 'make status    which results come from older code'
	@echo 'make lab       open the notebooks in JupyterLab'
	@echo 'make progress  which exercises you have solved'
	@echo 'make tensorboard   follow the runs of notebook 03 in TensorBoard'
	@echo 'make test      test everything: code, exercises, notebooks (smoke budget, made-up images)'
	@echo 'make test-browser   run every notebook in JupyterLab in a browser (chromium)'
	@echo 'make bench     measure the speed of the loader and the training loop'
	@echo 'make refresh   as run-all, and store the outputs in notebooks/'
	@echo 'make report    bring the numbers in the texts, the gallery and the speed table up to date'
	@echo 'make format    tidy code and notebooks        make lint    check them'
	@echo 'make clean     remove the environment, executed copies and caches; keeps data/ and results'

# The stamp is written last: an installation that was interrupted has none and starts over.
setup: .venv/installed
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make setup PYTHON=python3.12'; exit 1; }
	@echo 'Setting up .venv: once, some minutes, 6 GB with the CUDA libraries ...'
	@test -f $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	$(py) -m pip install --quiet --disable-pip-version-check --editable .
	$(py) -m ipykernel install --sys-prefix --name python3 > /dev/null
	@mkdir -p .venv/etc/ipython && echo 'c.IPKernelApp.log_level = 40' > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

run-all: setup
	@$(py) -m utils.run_all $(options)

status: setup
	@$(py) -m utils.provenance

refresh: setup
	@$(py) -m utils.run_all $(options) --store

report: setup
	@$(py) -m utils.report

progress: setup
	@$(py) -m utils.checks

lab: setup
	$(py) -m jupyterlab --notebook-dir=. --ServerApp.ip=127.0.0.1 notebooks/01_cnn_cifar100.ipynb

tensorboard: setup
	$(py) -m tensorboard.main --logdir figures --host 127.0.0.1

# nbval runs each notebook and compares the cells that are tagged as exact. Two processes, so one thread for each; the files in their
# own order, since xdist would start those with few but long tests last.
test: setup
	OMP_NUM_THREADS=1 RESNET_BUDGET=smoke RESNET_DATA=synthetic RESNET_PROGRESS=off $(py) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env --ignore tests/browser tests notebooks

# JupyterLab in a real browser: needs Debian's chromium, and says so where it is missing.
test-browser: setup
	@$(py) -c 'import playwright' 2> /dev/null || $(py) -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	$(py) -m pytest -rs tests/browser

bench: setup
	$(py) benchmarks/bench.py
	$(py) benchmarks/speedrun.py

format: setup
	$(py) -m ruff check --fix --select I . && $(py) -m ruff format .

lint: setup
	$(py) -m ruff check . && $(py) -m ruff format --check .

clean:
	rm -rf .venv figures/notebooks figures/checkpoints *.egg-info .pytest_cache .ruff_cache figures/*/*-*/
	find . -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
