"""Build the book: run the chapters whose outputs are missing or out of date, then render.

    python -m scripts.book                 _build/html/index.html
    python -m scripts.book --keep          render the last outputs, even if code has changed since
    python -m scripts.book --without-api   leave the reference of the package out (quicker)

Any warning of Sphinx is an error. Nothing is executed while rendering: the pages show the outputs
of `python -m scripts.chapters` and no others.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from nanogpt2.errors import UserError, run_command
from scripts.assemble import assemble
from scripts.chapters import DEFAULTS, is_current, run_all
from scripts.paths import BUILD, EXECUTED, HTML, ROOT, SOURCE, notebooks

RENDERED = BUILD / "book"


def render(with_api: bool = True) -> None:
    """Assemble and render; UserError if a page gives a warning."""
    start = time.perf_counter()
    assemble(with_api)
    shutil.rmtree(RENDERED, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(SOURCE)]
    command += ["--path-output", str(RENDERED), "--all", "-n", "-W", "--keep-going", "-q"]
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search}  # for scripts.sphinx_hooks
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stdout[-3000:])
        raise UserError("the book has the warnings above; each counts as an error")
    shutil.rmtree(HTML, ignore_errors=True)
    (RENDERED / "_build" / "html").replace(HTML)
    pages = sum(1 for _ in HTML.rglob("*.html"))
    size = sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file())
    print(f"{pages} pages, {size / 1e6:.0f} MB, rendered in {time.perf_counter() - start:.0f} s")
    print(f"open {HTML.relative_to(BUILD.parent)}/index.html, or run `make serve`")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.book", description="Build the book.")
    parser.add_argument("--keep", action="store_true", help="render the last outputs as they are")
    parser.add_argument("--without-api", action="store_true", help="leave the reference out")
    options = parser.parse_args()
    absent = [path for path in notebooks() if not (EXECUTED / path.name).exists()]
    wanted = absent if options.keep else [path for path in notebooks() if not is_current(path)]
    if wanted and run_all(wanted, DEFAULTS, jobs=1):
        return 1
    render(with_api=not options.without_api)
    return 0


if __name__ == "__main__":
    run_command(main)
