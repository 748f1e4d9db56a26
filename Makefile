# make run    serve with config/orchestrator.yml
# make compiled  translate the core to C, once, in two or three minutes: `make run` uses it from then on; make plain undoes it
# make test   the tests; `make test ARGS='tests/store -k kill'` runs some
# make test-compiled  the tests of the compiled modules on a compiled copy; a part of make test
# make check  ruff and mypy --strict
# make pythons  the pure tests on Python 3.11, 3.12 and 3.13, as far as they are here
# make bench  the benchmarks (make bench ARGS=--quick);  make demo  a call through the whole thing on this machine
#
# Needs python3 (3.11 or newer, with venv) and make; everything else is installed into .venv here.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
CONFIG ?= config/orchestrator.yml
ARGS   ?=

# The tests start the server two hundred times: its modules are compiled once, even if the environment forbids it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run compiled plain test test-compiled check pythons bench demo clean
.DEFAULT_GOAL := test

# Compiled modules that are older than their source are made anew.
run: $(VENV)/.stamp-run $(wildcard $(VENV)/.stamp-compiled)
	$(BIN)/orchestrator run -c $(CONFIG) $(ARGS)

# Two runs: tests of pure code and of commands, one process for each core, then those on real sockets and FreeSWITCH, which
# mostly wait, two files at a time. Beside them the compiled copy is built and runs the pure tests of its modules, with
# what the others leave of the cores; its calls on sockets come last. All always run, so that one look shows everything.
SOCKETS := tests/e2e tests/project tests/runtime
LEFT_OVER := $(shell command -v chrt >/dev/null && echo chrt --idle 0 || echo nice -n 19)
SAID := build/test-compiled.log

test: $(VENV)/.stamp-dev $(VENV)/.stamp-system
ifeq ($(strip $(ARGS)),)
	@status=0; mkdir -p build; \
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(addprefix --ignore=,$(SOCKETS)) || status=$$?; \
	$(LEFT_OVER) $(MAKE) --no-print-directory test-compiled >$(SAID) 2>&1 & compiled=$$!; \
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(SOCKETS) || status=$$?; \
	wait $$compiled || status=$$?; grep -v 'warning: Treating generator' $(SAID); \
	if [ -d $(COPY) ]; then ($(ON_COPY) $(ON_BOTH_SOCKETS)) || status=$$?; fi; \
	exit $$status
else
	$(BIN)/python -m pytest $(ARGS)
endif

# A copy is compiled, so that this tree stays what it is: plain, most often. Beside it stands what some tests look for
# beside the repository. Tests keep what pytest has made of them.
COPY := build/compiled/orchestrator
FLOWS_RUN := $(wildcard tests/flow/test_engine_*.py tests/flow/test_trace*.py) $(addprefix tests/flow/test_,flow_cases.py other_triggers.py package_effects.py registration_flow.py)
ON_BOTH := tests/sip tests/core tests/events $(FLOWS_RUN) tests/esl/test_codec.py tests/esl/test_channels.py tests/esl/test_translate.py tests/test_timers.py
ON_BOTH_SOCKETS := tests/e2e/test_calls_on_sockets.py tests/runtime/test_reactor.py tests/runtime/test_udp.py
ON_COPY = cd $(COPY) && PYTHONPATH="$$PWD" "$(abspath $(BIN))/python" -m pytest -n 2 --dist worksteal -p no:cacheprovider

test-compiled: $(VENV)/.stamp-dev
	@rm -rf $(COPY)/orchestrator $(COPY)/tests; \
	command -v cc >/dev/null || { rm -rf $(COPY); echo "make test-compiled needs a C compiler, skipped: sudo apt-get install gcc"; exit 0; }; \
	set -e; mkdir -p $(COPY); [ ! -d ../shared ] || ln -sfn "$(abspath ../shared)" build/compiled/shared; \
	tar -c --exclude=./build --exclude=./.venv* --exclude=./.git --exclude='*.so' --exclude='.*_cache' . | tar -x -C $(COPY); \
	(cd $(COPY); ORCHESTRATOR_BUILD=compiled ORCHESTRATOR_OPTIMISE=0 "$(abspath $(BIN))/python" setup.py --quiet build_ext --inplace; \
	PYTHONPATH="$$PWD" "$(abspath $(BIN))/python" -m orchestrator --version | grep compiled); \
	$(ON_COPY) $(or $(ARGS),$(ON_BOTH))

# All three always run, so that one look shows everything.
check: $(VENV)/.stamp-dev
	@status=0; \
	for tool in 'ruff check .' 'ruff format --check .' 'mypy'; do \
	  echo "$(BIN)/$$tool"; $(BIN)/$$tool || status=1; \
	done; exit $$status

# The pure tests on the other versions of Python that are here; those that are not are skipped and named.
pythons: $(VENV)/.stamp-dev
	@$(BIN)/python -m tools.pythons $(ARGS)

bench: $(VENV)/.stamp-dev $(VENV)/.stamp-system
	$(BIN)/python -m bench $(ARGS)

demo: $(VENV)/.stamp-run
	$(BIN)/orchestrator demo $(ARGS)

clean:
	rm -rf $(VENV) build .venv-3.* .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

compiled: $(VENV)/.stamp-compiled

# What all compiled modules share stands where Python finds it from everywhere.
LIBRARY_FOLDER = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
LIBRARY = $$(find orchestrator -name '*.so') orchestrator__mypyc.*.so $(LIBRARY_FOLDER)/orchestrator__mypyc.*.so

plain:
	rm -rf $(LIBRARY) build $(VENV)/.stamp-compiled

# --- what the targets stand on ----------------------------------------------------------------------------------------
# A stamp is newer than pyproject.toml exactly when what it lists is installed.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-run: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-run

ROOMS := sip core events esl flow views
COMPILED := setup.py orchestrator/_fast.c $(shell find $(addprefix orchestrator/,$(ROOMS)) -name '*.py') \
  $(addprefix orchestrator/,measures.py timers.py runtime/reactor.py runtime/udp.py runtime/udp_places.py)

$(VENV)/.stamp-compiled: $(COMPILED) | $(VENV)/.stamp-run
	@command -v cc >/dev/null || { echo "make compiled needs a C compiler: sudo apt-get install gcc"; exit 1; }
	$(PIP) 'setuptools>=77' --editable '.[compiled]'
	rm -f $(LIBRARY)
	ORCHESTRATOR_BUILD=compiled $(BIN)/python setup.py --quiet build_ext --inplace 2>&1 | grep -v 'warning: Treating generator' || true
	mv orchestrator__mypyc.*.so $(LIBRARY_FOLDER)
	@$(BIN)/orchestrator --version
	@touch $@

# SIPp drives the end-to-end tests; iptables publishes ports in the laboratory of docs/compose.md, and baresip calls there;
# PostgreSQL and MariaDB hold the users of tests/runtime/test_sql_users.py; sngrep and Kamailio take what we send to Homer;
# sqlite3 and nft read what docs/operations.md shows.
# A test without its program is skipped, and says so. No stamp is left then: they are asked for again.
PROGRAMS := sipp:sip-tester iptables:iptables baresip:baresip chromium:chromium pg_ctlcluster:postgresql mariadbd:mariadb-server-core sngrep:sngrep kamailio:kamailio rabbitmqctl:rabbitmq-server sqlite3:sqlite3 nft:nftables

$(VENV)/.stamp-system: Makefile | $(BIN)/python
	@absent() { for one in $(PROGRAMS); do PATH="$$PATH:/usr/sbin:/sbin" command -v "$${one%%:*}" >/dev/null || printf '%s ' "$${one##*:}"; done; }; \
	packages=$$(absent); \
	if [ -n "$$packages" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages; \
	  packages=$$(absent); \
	fi; \
	if [ -z "$$packages" ]; then touch $@; \
	else echo "Some tests are skipped: they need programs that are missing. Install them with: sudo apt-get install $$packages"; fi
