# `make` alone explains itself.
BUDGET ?= auto
DATA ?= auto
DEVICE ?= auto
ONLY ?=
EPOCHS ?=
SEED ?= 0
FRESH ?=
PYTHON ?= python3
SERVE ?=

# A mistyped option (BUGET=smoke) must not be ignored.
known := BUDGET DATA DEVICE ONLY EPOCHS SEED FRESH PYTHON SERVE
given := $(foreach word,$(MAKEOVERRIDES),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))
unknown := $(filter-out $(known),$(given))
ifneq ($(unknown),)
$(error unknown option $(unknown): use $(known))
endif

# Only this environment's own kernel, whatever else is installed for the user.
unexport JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH := 1

py := .venv/bin/python
small := OMP_NUM_THREADS=1 RESNET_BUDGET=smoke RESNET_DATA=synthetic RESNET_PROGRESS=off $(py)
options := --budget "$(BUDGET)" --data "$(DATA)" --device "$(DEVICE)" --seed "$(SEED)" $(if $(EPOCHS),--epochs "$(EPOCHS)") $(if $(ONLY),--only $(ONLY)) $(if $(filter-out 0,$(FRESH)),--fresh)

.DEFAULT_GOAL := help
.PHONY: help setup run-all status progress test test-slow test-answers test-browser lab tensorboard bench speedrun refresh report site format lint lock clean

help:
	@echo 'make run-all   run every notebook, write plots and results to figures/'
	@echo '               BUDGET=smoke|quick|full|paper   how long to train (default: full on a GPU, quick without)'
	@echo '               DATA=...                  cifar100, cifar10, fashionmnist, synthetic or a folder of class folders'
	@echo '               DEVICE=cpu|cuda|mps       (default: a CUDA GPU where there is one)'
	@echo '               ONLY="01 03"  EPOCHS=3  SEED=1'
	@echo '               FRESH=1                   run again what is unchanged, and from the first epoch'
	@echo 'make status    which results come from older code'
	@echo 'make lab       open your own copies of the notebooks, in my_notebooks/, in JupyterLab'
	@echo 'make progress  which exercises you have solved'
	@echo 'make tensorboard   follow the runs of notebook 03 in TensorBoard'
	@echo 'make test      test code, exercises and notebooks (smoke budget, made-up images)'
	@echo 'make test-slow  the tests that take longest: processes that are killed, benchmarks'
	@echo 'make test-answers   check all answers to the exercises, not only some of each'
	@echo 'make test-browser   run every notebook in JupyterLab in a browser (chromium), and visit the site'
	@echo 'make bench     measure the speed of the loader, the training loop, and two processes'
	@echo 'make speedrun  train to 94 % on CIFAR-10, as notebook 10 does, and say how long it took'
	@echo 'make refresh   as run-all, and store the outputs in notebooks/'
	@echo 'make report    bring the numbers in the texts and the speed table up to date'
	@echo 'make site      build the site, in docs/_build/site/; needs npm. SERVE=1 shows it at http://127.0.0.1:8000'
	@echo 'make format    tidy code and notebooks        make lint    check them'
	@echo 'make lock      renew requirements.lock, the versions that are installed'
	@echo 'make clean     remove the environment, checkpoints and caches; keeps data/ and all results'

# The stamp is written last: an installation that was interrupted has none and starts over.
setup: .venv/installed
.venv/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make setup PYTHON=python3.12'; exit 1; }
	@echo 'Setting up .venv: once, some minutes, 6 GB with the CUDA libraries ...'
	@test -f $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	$(py) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(py) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(py) -m ipykernel install --sys-prefix --name python3 > /dev/null
	@mkdir -p .venv/etc/jupyter/labconfig && echo '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}' > .venv/etc/jupyter/labconfig/page_config.json
	@mkdir -p .venv/etc/ipython && echo 'c.IPKernelApp.log_level = 40' > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

# The versions to install, with the digest of every file; no registry's address is in it.
lock: setup
	$(py) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file requirements.lock
	$(py) -m uv pip compile --group site --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file docs/requirements.lock

run-all: setup
	@$(py) -m runner.run_all $(options)

status: setup
	@$(py) -m runner.provenance

refresh: setup
	@$(py) -m runner.run_all $(options) --store

report: setup
	@$(py) -m runner.report

progress: setup
	@$(py) -m utils.checks

# The learner's own copies, which git ignores: answers never stand in the way of a new edition, and none is ever overwritten.
lab: setup
	@mkdir -p my_notebooks
	@for file in notebooks/*.ipynb; do test -e "my_$$file" || cp "$$file" my_notebooks/; done
	$(py) -m jupyterlab --notebook-dir=. --ServerApp.ip=127.0.0.1 my_notebooks/01_cnn_cifar100.ipynb

tensorboard: setup
	$(py) -m tensorboard.main --logdir figures --host 127.0.0.1

# nbval runs each notebook and compares the cells that are tagged as exact. Two processes, so one thread for each; the files in their
# own order, since xdist would start those with few but long tests last.
test: setup
	$(small) -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env --ignore tests/browser tests notebooks

# Tests that start many processes, kill them or time them; and notebook 11, which starts processes, too.
test-slow: setup
	$(small) -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env --ignore tests/browser notebooks/11_*.ipynb tests

# Every answer to every exercise, some 1,100, and of notebook 07 all seeds of the proofs and all cases; `make test` takes some of each.
test-answers: setup
	OMP_NUM_THREADS=1 RESNET_ANSWERS=all $(py) -m pytest -n 2 tests/test_checks.py tests/test_lab_proofs.py tests/test_lab_notebook.py

# JupyterLab in a real browser: needs Debian's chromium, and says so where it is missing.
test-browser: setup
	$(py) -m pytest -rs tests/browser

bench: setup
	$(py) benchmarks/bench.py
	$(py) benchmarks/beyond.py

speedrun: setup
	$(py) benchmarks/speedrun.py

# The site has an environment of its own, a small one without torch, and two packages of npm: formulas, and the network of the playground.
site: .venv-site/installed docs/web/node_modules/installed
	@rm -rf docs/_build/site
	.venv-site/bin/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -d docs/_build/doctrees docs docs/_build/site
	@echo 'The site is docs/_build/site/index.html'
	@$(if $(SERVE),.venv-site/bin/python -m http.server --bind 127.0.0.1 --directory docs/_build/site 8000)

.venv-site/installed: docs/requirements.lock
	@test -f $@ || $(PYTHON) -m venv --clear .venv-site
	@rm -f $@
	.venv-site/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement docs/requirements.lock
	@touch $@

docs/web/node_modules/installed: docs/web/package-lock.json
	@command -v npm > /dev/null || { echo 'npm is needed, which comes with Node.js: apt-get install npm, or brew install node'; exit 1; }
	cd docs/web && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

format: setup
	$(py) -m ruff check --fix --select I . && $(py) -m ruff format .

lint: setup
	$(py) -m ruff check . && $(py) -m ruff format --check .

clean:
	rm -rf .venv .venv-site docs/_build docs/_generated docs/notebooks docs/web/node_modules learn_resnets.egg-info .pytest_cache .ruff_cache figures/checkpoints
	find benchmarks notebooks runner tests utils -type d '(' -name __pycache__ -o -name .ipynb_checkpoints ')' -prune -exec rm -rf '{}' +
