# Phosphene: two commands for everyone (demo, test), the rest for who works on it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= phosphene-tour
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow lint bench docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       install, and make the report of the tour from a bundled photograph"
	@echo "make test       install the test extras, and run the tests"
	@echo "make test-slow  also the long experiments"
	@echo "make lint       ruff and pyright"
	@echo "make bench      the benchmarks, ours and the peers alternating"
	@echo "make docs       make the pictures of the README and the docs again"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Phosphene needs Python 3.10 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	@$(PYTHON) -m venv $(VENV) || { echo "no venv here: install your system's python3-venv package"; rm -rf $(VENV); exit 1; }

# Installed again when the dependencies change; editable, so that the sources are always the ones that run.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -e '.[test,mirror]'
	@touch $@ $(VENV)/.installed

# Libraries that the attacks are compared with. They pin old packages, so they come without what they require; RobustBench
# comes last because torchattacks brings a part of an old one along. Where they can't be had, their tests are skipped.
$(VENV)/.installed-peers: $(VENV)/.installed-test
	@{ $(PIP) install --quiet --retries 1 requests tqdm pyyaml gitpython \
		&& $(PIP) install --quiet --retries 1 --no-deps torchattacks eagerpy foolbox pyautoattack torchdiffeq geotorch \
		&& $(PIP) install --quiet --retries 1 --no-deps --force-reinstall robustbench; } 2>/dev/null && touch $@ \
		|| echo "no torchattacks, foolbox and RobustBench here: their tests will be skipped"

# VGG-16 is the lecture's own network. It is 60 MB and not bundled; without a source the tour goes on without it.
demo: $(VENV)/.installed
	@$(BIN)/python -c 'import onnx' 2>/dev/null || $(PIP) install --quiet -e '.[mirror]' || true
	@$(BIN)/phosphene models get vgg16 || echo "VGG-16 could not be fetched: going on with the bundled networks"
	$(BIN)/phosphene tour --overwrite --out $(OUT)
	@echo "Open the report: $(CURDIR)/$(OUT)/index.html"

test: $(VENV)/.installed-test $(VENV)/.installed-peers browser
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed-test $(VENV)/.installed-peers browser
	$(BIN)/python -m pytest

# The browser tests run in Debian's Chromium; elsewhere, or without the right to install, they are skipped.
.PHONY: browser
browser:
	@sh tools/install_chromium.sh || echo "no Chromium: the browser tests will be skipped"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# lucent's own requirements pin old packages, so it comes without them.
bench: $(VENV)/.installed-test $(VENV)/.installed-peers
	$(PIP) install --quiet kornia decorator ipython && $(PIP) install --quiet --no-deps torch-lucent neural-style
	cd benchmarks && for each in accuracy taps explain focus fooling attacks synthesize style transfer advice tour; do \
		echo "== $$each"; ../$(BIN)/python $$each.py || exit 1; done

docs: $(VENV)/.installed-test browser
	$(BIN)/python tools/make_pictures.py
	$(BIN)/python tools/make_support_table.py

clean:
	rm -rf $(VENV) $(OUT) .pytest_cache .ruff_cache .hypothesis build dist
