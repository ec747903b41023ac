# `make demo` and `make test` are complete from a bare machine with Python 3.11 or newer: venv, pinned install, run.
PYTHON    ?= python3
VENV      ?= .venv
PIP_FLAGS ?=
BIN       := $(VENV)/bin
DEMO      ?= demo-out

.PHONY: demo serve test test-fast check clean
.DEFAULT_GOAL := test

$(VENV)/.ok: pyproject.toml constraints.txt hatch_build.py $(wildcard src/upframe/kernels/*.cpp src/upframe/kernels/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "upframe needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.ok
	$(BIN)/python examples/demo.py $(DEMO)

# The page and the REST service, at http://127.0.0.1:8188 (docs/serve.md). SERVE takes flags: make serve SERVE='--port 9000'.
serve: $(VENV)/.ok
	$(BIN)/upframe serve $(SERVE)

test: $(VENV)/.ok
	$(BIN)/python -m pytest -q -n auto

# While you work: the tests that are quick and need nothing else (CONTRIBUTING.md).
test-fast: $(VENV)/.ok
	$(BIN)/python -m pytest -q -n auto -m "not (slow or shared or gpu or browser or fuzz)"

check: $(VENV)/.ok
	BIN=$(BIN) scripts/check

clean:
	rm -rf $(VENV) $(DEMO) build dist
