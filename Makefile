# Everything runs in .venv, which is made on first use. Python 3.11 or newer as `python3`, or say `make PYTHON=python3.12 …`.
PYTHON ?= python3
# Tested versions: without them pip tries old releases for minutes until those of ray, moto and s3fs fit together.
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export NO_ALBUMENTATIONS_UPDATE = 1

.PHONY: demo smoke test test-fast docs lint types format bench release-check clean distclean

.venv/installed: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) -e '.[dev]'
	touch $@

demo: .venv/installed  ## synthetic study → trained model → report → scored inbox
	.venv/bin/lepton-vision demo

smoke: .venv/installed  ## what the README promises without any extra: the demo, then volumes with masks, trained and scored
	.venv/bin/python scripts/smoke.py

test: .venv/installed-dev  ## all tests, the slow ones too
	.venv/bin/python -m pytest -n 2 --dist worksteal

test-fast: .venv/installed-dev  ## without the slow tests
	.venv/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

docs: .venv/installed-dev  ## docs/_build/html/index.html, without a network; the reference is made anew
	.venv/bin/python scripts/reference.py
	.venv/bin/sphinx-build -W --keep-going -q -b html docs docs/_build/html

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/installed-dev
	.venv/bin/mypy

format: .venv/installed-dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/installed-dev  ## the tables of docs/speed.md and docs/results (hours)
	for script in scripts/bench/*.py; do .venv/bin/python $$script || exit 1; done

release-check: .venv/installed-dev  ## wheel and sdist, built, looked into, installed and tried elsewhere (minutes)
	.venv/bin/python scripts/release_check.py

clean:  ## caches and the demo; the environment stays
	rm -rf .pytest_cache .mypy_cache .ruff_cache demo-run docs/_build docs/notebooks

distclean: clean  ## the environment too
	rm -rf .venv
