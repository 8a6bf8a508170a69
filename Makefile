# How to install, run, test and check the project on a bare Linux machine: `make` lists the targets.
#
#   make demo DEMO_FLAGS='--optim.epochs 2'      make test TEST_FLAGS='-k sampling -x'
#   make install PYTHON=/opt/python3.11/bin/python3
#
# Nothing outside this folder changes, except that uv keeps its downloads in ~/.cache/uv.

UV_VERSION := 0.13.9
DEMO_FLAGS ?=
TEST_FLAGS ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Without compiled files every process of a Ray run compiles torch, pandas and Ray anew: it takes three times as long.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE
# These would mix another environment into ours.
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

# Not `uv run`: Ray finds it among the parent processes and starts every worker with it too, in a copy of this folder.
RUN := .venv/bin/python
INSTALLED := .venv/.installed

.PHONY: help install demo demo-all autoscale job-forms two-networks test drills rehearse check format verify clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## make the environment .venv from the lock file (the other targets do it by themselves)
	@echo 'ready; to work in it: source .venv/bin/activate'

demo: $(INSTALLED) ## train CAST on rendered videos on two CPU cores, evaluate it, write a report
	@$(RUN) jobs/demo.py $(DEMO_FLAGS)

demo-all: $(INSTALLED) ## compare single experts, CAST, CAVA and CA2ST on rendered videos with sound: 45 minutes
	@$(RUN) jobs/demo_all.py $(DEMO_FLAGS)

autoscale: $(INSTALLED) ## show a cluster that grows for a job and shrinks after it, with the node types of cluster/aws.yaml
	@$(RUN) tests/cluster/autoscale.py

job-forms: $(INSTALLED) ## submit a job with a token and an upload, in the background; stop it and go on (needs Prometheus)
	@$(RUN) tests/cluster/job_forms.py

two-networks: $(INSTALLED) ## train on two machines with a network between them, and cut one off; as root, with `ip`
	@$(RUN) tests/cluster/two_networks.py

test: $(INSTALLED) ## run all tests, as CI does
	@# Status 5: no test of this half was asked for.
	half() { $(RUN) -m pytest "$$@" $(TEST_FLAGS) || [ $$? = 5 ]; }
	half tests --ignore=tests/integration -n auto --maxprocesses 8
	half tests/integration

drills: $(INSTALLED) ## kill, hang, fill and stop training runs on a simulated cluster: an hour on two cores
	@$(RUN) -m pytest -s tests/drills $(TEST_FLAGS)

rehearse: $(INSTALLED) ## the job for 2 nodes x 8 workers on this machine: 16 processes, 12 GB of memory
	@$(RUN) -m pytest -s tests/drills/rehearsal.py $(TEST_FLAGS)

check: $(INSTALLED) ## lint, formatting and types: all three, even if one fails
	@status=0
	$(RUN) -m ruff check || status=1
	$(RUN) -m ruff format --check || status=1
	$(RUN) -m mypy || status=1
	exit $$status

format: $(INSTALLED) ## repair what ruff can repair
	@$(RUN) -m ruff check --fix --exit-zero --quiet
	$(RUN) -m ruff format

verify: $(INSTALLED) ## compare the model with the golden numbers
	@.venv/bin/cast-ray verify tests/golden/*.json

clean: ## remove the environment and the caches; runs and reports stay
	@rm -rf .venv .bootstrap .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml uv.lock
	@fail() { echo "error: $$1" >&2; exit 1; }
	case $$PWD in
	    *[[:space:]]*) fail "the path '$$PWD' has a space, and Ray cannot start workers there; move this folder";;
	esac

	python=
	for candidate in $(or $(PYTHON),.venv/bin/python python3.11 python3 python3.12); do
	    [ "$$python" ] || python=$$("$$candidate" -c \
	        'import sys; (3, 11) <= sys.version_info < (3, 13) and print(sys.executable)' 2> /dev/null || true)
	done
	[ "$$python" ] \
	    || fail "$(or $(PYTHON),python3) is not Python 3.11 or 3.12; install one, or name it: make PYTHON=/path/to/it"

	# A uv is good if it can read the lock file. Into a folder, pip installs even where Debian protects the system's
	# packages (PEP 668) and where `python -m venv` lacks ensurepip.
	for uv in uv .bootstrap/bin/uv ''; do
	    "$$uv" export --frozen --offline --quiet > /dev/null 2>&1 && break || true
	done
	if [ ! "$$uv" ]; then
	    pip=("$$python" -m pip)
	    "$${pip[@]}" --version &> /dev/null || pip=(pip3)
	    "$${pip[@]}" --version &> /dev/null || fail "$$python has no pip; install it (Debian: apt install python3-pip)"
	    echo "installing uv $(UV_VERSION) into .bootstrap"
	    PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
	        "$${pip[@]}" install --quiet --upgrade --target .bootstrap 'uv==$(UV_VERSION)'
	    uv=.bootstrap/bin/uv
	fi

	[ -d .venv ] && echo "bringing .venv up to date with the lock file" \
	    || echo "installing the locked packages into .venv: 3.4 GB to download, 7 GB on disk, one or two minutes"
	[ -t 2 ] && quiet= || quiet=--quiet
	"$$uv" sync --frozen --python "$$python" $$quiet
	touch $@
	echo "installed in $$SECONDS s"
