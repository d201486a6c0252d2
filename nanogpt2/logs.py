"""Where else a run's curves go: Weights & Biases, Trackio, TensorBoard, or nowhere.

``metrics.jsonl`` in the run's folder is always written by the trainer; a log is a second place, for
watching many runs side by side. Each is an optional extra of the package and is imported only when
it is asked for. Chapter: speedrun.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError

PROJECT = "nanogpt2"


class Log:
    """Nowhere: the files in the run's folder are enough. What the trainer needs of any log."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float | str]) -> None:
        """Record numbers and texts at ``step``; steps never go back within one log."""

    def close(self) -> None:
        """Send what is still waiting."""


class TrackedLog(Log):
    """Weights & Biases, or Trackio, which keeps its runs on this machine: both have such runs."""

    def __init__(self, package: str, folder: Path, configuration: Mapping[str, Any]) -> None:
        more = {}
        if package == "wandb":  # the id follows from the folder: a resumed run continues its log
            place = str(folder.resolve()).encode()
            more = {"dir": str(folder), "id": hashlib.sha256(place).hexdigest()[:16]}
        self.run = importlib.import_module(package).init(
            project=PROJECT, name=folder.name, resume="allow", config=dict(configuration), **more
        )

    def log(self, step: int, values: Mapping[str, float | str]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class TensorboardLog(Log):
    """TensorBoard event files in the run's own folder ``tensorboard/``."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        self.writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(
            log_dir=str(folder / "tensorboard")
        )
        lines = "".join(f"    {name} = {value}\n" for name, value in configuration.items())
        self.writer.add_text("configuration", lines)

    def log(self, step: int, values: Mapping[str, float | str]) -> None:
        for name, value in values.items():
            add = self.writer.add_text if isinstance(value, str) else self.writer.add_scalar
            add(name, value, step)

    def close(self) -> None:
        self.writer.close()


LOGS: dict[str, Callable[[Path, Mapping[str, Any]], Log]] = {
    "wandb": partial(TrackedLog, "wandb"),
    "trackio": partial(TrackedLog, "trackio"),
    "tensorboard": TensorboardLog,
    "none": Log,
}
KINDS = tuple(LOGS)


def open_log(kind: str, folder: Path, configuration: Mapping[str, Any]) -> Log:
    """Open the log named ``kind`` for the run in ``folder``; UserError as ``check_log`` raises."""
    check_log(kind)
    return LOGS[kind](folder, configuration)


def check_log(kind: str) -> None:
    """Raise UserError, before any work, where there is no such log or it is not installed."""
    if kind not in LOGS:
        raise UserError(f"there is no log {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "none":
        return
    try:
        importlib.import_module(kind)
    except ImportError:
        raise UserError(
            f"--log {kind} needs the package {kind}, which is not installed; "
            f"install it with `pip install -e '.[{kind}]'`, or use --log none"
        ) from None
