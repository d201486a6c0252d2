"""Run the chapters with papermill, once, and note what each one cost.

    python -m scripts.chapters                    every chapter
    python -m scripts.chapters 06_norms           those named
    python -m scripts.chapters --missing          those without an up-to-date run
    python -m scripts.chapters --scale laptop     larger than in continuous integration

A run leaves ``_build/executed/NAME.ipynb`` (with outputs) and ``NAME.json`` (seconds, peak memory,
parameters, and a hash of what it depends on). The book shows these outputs and no others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from nanogpt2 import lab
from nanogpt2.errors import UserError, run_command
from nanogpt2.files import read_json, write_json
from nanogpt2.lab.pace import slowness
from nanogpt2.lab.parameters import SCALES
from nanogpt2.machines import cores
from scripts.depends import fingerprint
from scripts.paths import EXECUTED, notebooks

CHAPTER_BUDGET = 180.0
"""seconds of one chapter on two cores of the speed that ``nanogpt2.lab.pace`` names"""
TOTAL_BUDGET = 1500.0
"""seconds of all chapters there"""
HANGING = 900
"""seconds after which one cell counts as hanging; larger scales have no such limit"""
ENVIRONMENT = {
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not the user's of the same name
    "NANOGPT2_LAB": "static",  # figures to play with that need no kernel
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # no debugger warning in the outputs
}
DEFAULTS: dict[str, Any] = {"DEPTH": 12, "SCALE": "ci", "SEED": 0}


def costs_file(notebook: Path) -> Path:
    """Where the costs of the notebook's run are noted."""
    return EXECUTED / f"{notebook.stem}.json"


def is_current(notebook: Path, parameters: dict[str, Any] | None = None) -> bool:
    """Whether the last run of ``notebook`` still says what a new one would.

    Without ``parameters``, a run at any scale counts: the book shows the last one.
    """
    note, output = costs_file(notebook), EXECUTED / notebook.name
    if not (note.exists() and output.exists()):
        return False
    costs = read_json(note)
    return costs["fingerprint"] == fingerprint(notebook, parameters or costs["parameters"])


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """UserError if the notebook does not declare one of ``parameters`` (papermill only warns)."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            text = "".join(cell["source"])
            declared = {line.partition("=")[0].strip() for line in text.splitlines()}
            missing = set(parameters) - declared
            if missing:
                raise UserError(
                    f"{notebook.name} has no parameter {', '.join(sorted(missing))}; "
                    "declare it in the cell tagged 'parameters'"
                )
            return
    raise UserError(f"{notebook.name} has no cell tagged 'parameters'; add one")


class PeakMemory(threading.Thread):
    """Samples the resident memory of a process and all its children, twice a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        """Sample until ``ended`` is set."""
        while not self.ended.wait(0.5):
            self.peak = max(self.peak, self._resident())

    def _resident(self) -> int:
        total = 0
        try:
            parent = psutil.Process(self.pid)
            family = [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return 0
        for process in family:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total


def execute(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run one chapter; UserError with the end of its output if a cell fails."""
    check_parameters(notebook, parameters)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    before = fingerprint(notebook, parameters)
    running = EXECUTED / f"{notebook.stem}.running.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), str(running), "-k", "python3"]
    command += ["--cwd", str(notebook.parent), "--no-progress-bar", "--log-level", "ERROR"]
    if parameters["SCALE"] == "ci":
        command += ["--execution-timeout", str(HANGING)]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    environment = {**os.environ, **ENVIRONMENT}
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        memory = PeakMemory(process.pid)
        memory.start()
        output, _ = process.communicate()
        memory.ended.set()
    seconds = time.perf_counter() - start
    if process.returncode:
        _, _, told = output.rpartition("Exception encountered")  # the cell; without it, all
        raise UserError(f"{notebook.name} failed after {seconds:.0f} s:{(told or output)[-4000:]}")
    running.replace(EXECUTED / notebook.name)
    costs = {
        "chapter": notebook.stem,
        "seconds": round(seconds, 1),
        "peak_bytes": memory.peak,
        "parameters": parameters,
        "fingerprint": before,
        "finished": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "cores": cores(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    write_json(costs_file(notebook), costs)
    return costs


def run_all(wanted: list[Path], parameters: dict[str, Any], jobs: int) -> int:
    """Run the notebooks ``wanted``, at most ``jobs`` at a time; the exit code."""
    failures: list[str] = []
    slow = [slowness()]

    def one(notebook: Path) -> float:
        try:
            costs = execute(notebook, parameters)
        except UserError as error:
            failures.append(str(error))
            return 0.0
        slow.append(slowness())
        size = costs["peak_bytes"] / 2**30
        print(f"{notebook.stem}: {costs['seconds']:.1f} s, {size:.1f} GiB at most", flush=True)
        if parameters["SCALE"] == "ci":
            allowed = CHAPTER_BUDGET * max(slow[-2:])  # others may come and go while it runs
            keep_budget(failures, notebook.name, costs["seconds"], allowed)
        return costs["seconds"]

    with ThreadPoolExecutor(jobs) as pool:
        total = sum(pool.map(one, wanted))
    print(f"a machine {max(slow):.1f} times as slow as budgets are stated for, or faster")
    if parameters["SCALE"] == "ci":
        keep_budget(failures, "all chapters", total, TOTAL_BUDGET * max(slow))
    print(f"{len(wanted) - len(failures)} notebooks ran in {total:.0f} s, {len(failures)} failed")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def keep_budget(failures: list[str], what: str, seconds: float, allowed: float) -> None:
    """Over its budget: a failure where budgets are kept (``CI`` is set), elsewhere a warning."""
    if seconds <= allowed:
        return
    sentence = f"{what} took {seconds:.0f} s; the budget is {allowed:.0f} s on this machine now"
    if os.environ.get("CI"):
        failures.append(sentence)
    else:
        print(f"warning: {sentence}", file=sys.stderr)


def select(names: list[str]) -> list[Path]:
    """The chapters of these names (all of them without any); UserError for an unknown one."""
    known = {path.stem: path for path in notebooks()}
    unknown = [name for name in names if Path(name).stem not in known]
    if unknown:
        raise UserError(f"no chapter {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[Path(name).stem] for name in names] or list(known.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.chapters", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="chapters, for example 06_norms; all without any")
    parser.add_argument("--missing", action="store_true", help="only those without a current run")
    parser.add_argument("--depth", type=int, default=DEFAULTS["DEPTH"])
    parser.add_argument("--scale", choices=SCALES, default=DEFAULTS["SCALE"])
    parser.add_argument("--seed", type=int, default=DEFAULTS["SEED"])
    parser.add_argument("--jobs", type=int, choices=[1, 2], default=1, help="chapters at a time")
    options = parser.parse_args()
    parameters = {"DEPTH": options.depth, "SCALE": options.scale, "SEED": options.seed}
    wanted = select(options.names)
    lab.check_parameters(options.depth, options.scale, options.seed)
    if options.missing:
        wanted = [path for path in wanted if not is_current(path)]
    return run_all(wanted, parameters, options.jobs)


if __name__ == "__main__":
    run_command(main)
