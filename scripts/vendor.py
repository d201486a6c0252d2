"""Fetch what the pages need in a browser (MathJax, widget scripts), so that they need no network.

``book/package-lock.json`` pins every file by its hash. Needs npm the first time only.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import atomic_directory, sha256_of
from scripts.paths import BOOK, BUILD, VENDOR

LOCK = BOOK / "package-lock.json"
# from the package's folder under node_modules to the folder under vendor/
FILES = {
    "mathjax/es5/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
    "mathjax/es5/output/chtml/fonts": "mathjax/output/chtml/fonts",
    "mathjax/es5/input/tex": "mathjax/input/tex",
    "mathjax/es5/a11y": "mathjax/a11y",
    "mathjax/es5/sre": "mathjax/sre",
    "mathjax/es5/ui": "mathjax/ui",
    "mathjax/LICENSE": "mathjax/LICENSE",
    "@jupyter-widgets/html-manager/dist/embed.js": "widgets/embed.js",
    "@jupyter-widgets/html-manager/dist/embed.js.LICENSE.txt": "widgets/embed.js.LICENSE.txt",
    "@jupyter-widgets/schema/LICENSE": "widgets/LICENSE",
}


def vendor() -> Path:
    """Folder of the browser's files, made if it is not there for this lock file."""
    stamp = VENDOR / "lock.sha256"
    wanted = sha256_of(LOCK)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return VENDOR
    modules = _install()
    with atomic_directory(VENDOR) as folder:
        for source, target in FILES.items():
            here, there = modules / source, folder / target
            there.parent.mkdir(parents=True, exist_ok=True)
            if here.is_dir():
                shutil.copytree(here, there)
            else:
                shutil.copy(here, there)
        (folder / "lock.sha256").write_text(wanted, encoding="utf-8")
    shutil.rmtree(modules)
    return VENDOR


def _install() -> Path:
    """``node_modules`` with exactly what the lock file names."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            "npm was not found; the book's pages carry MathJax and widget scripts that npm fetches "
            "once. Install Node.js 18 or newer: apt install npm, brew install node, or "
            "conda install nodejs"
        )
    folder = BUILD / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(BOOK / name, folder / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            "npm could not fetch the book's browser scripts; check the network and try again:\n"
            + done.stderr[-1000:]
        )
    return folder / "node_modules"


if __name__ == "__main__":
    run_command(lambda: print(vendor()))
