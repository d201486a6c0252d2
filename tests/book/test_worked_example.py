"""The worked example of the leaderboard's page: its diff applies, and what it adds works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.paths import BOOK, ROOT

DIFF = BOOK / "add-a-technique.diff"
NEW = "tests/studies/test_leaky_relu2.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the example touches and its tests need, with the diff applied."""
    root = tmp_path_factory.mktemp("worked") / "copy"
    for folder in ("nanogpt2", "tests", "book/results"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copy(BOOK / "ladder.ipynb", root / "book")
    call(root, "git", "init", "--quiet")  # not the repository that the copy may lie in
    call(root, "git", "apply", str(DIFF))
    return root


def call(root: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("NANOGPT2_RESULTS", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_is_short_and_goes_from_switch_to_record() -> None:
    lines = DIFF.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
    touched = [line.removeprefix("+++ b/") for line in lines if line.startswith("+++ ")]
    assert touched == [
        "nanogpt2/config.py",
        "nanogpt2/model/mlp.py",
        "nanogpt2/reported.py",
        "nanogpt2/rungs.py",
        "nanogpt2/studies/ladder/expectations.py",
        NEW,
    ]


def test_its_own_test_passes_with_it_and_the_ladders_do_still(copy: Path) -> None:
    call(copy, sys.executable, "-m", "nanogpt2.studies.ladder", "--stage", "summary")
    tests = [NEW, "tests/test_rungs.py", "tests/studies/test_ladder.py"]
    call(copy, sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests)


def test_without_the_one_line_of_the_model_its_test_fails(copy: Path, tmp_path: Path) -> None:
    """What the example tests is the technique, not its name."""
    wrong = tmp_path / "wrong"
    shutil.copytree(copy, wrong)
    mlp = wrong / "nanogpt2" / "model" / "mlp.py"
    text = mlp.read_text(encoding="utf-8")
    assert text.count("F.leaky_relu(h, 0.5).square()") == 1
    mlp.write_text(text.replace("F.leaky_relu(h, 0.5)", "F.relu(h)"), encoding="utf-8")
    with pytest.raises(AssertionError, match="test_it_is_the_square"):
        call(wrong, sys.executable, "-m", "pytest", "-q", "-n", "0", NEW)
