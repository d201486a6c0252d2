"""Where else a run's curves go: Weights & Biases, Trackio, TensorBoard, or nowhere.

``metrics.jsonl`` in the run's folder is always written by the trainer; a log is a second place, for
watching many runs side by side. Each is an optional extra of the package and is imported only when
it is asked for. Chapter: speedrun.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from nanogpt2.errors import UserError

KINDS = ("wandb", "trackio", "tensorboard", "none")
PROJECT = "nanogpt2"


class Log(Protocol):
    """What the trainer needs of a log."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record scalar ``values`` at ``step``; steps never go back within one log."""

    def close(self) -> None:
        """Send what is still waiting."""


class NoLog:
    """Nowhere: the files in the run's folder are enough."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class WandbLog:
    """Weights & Biases. Its run id follows from the folder, so that a resumed run continues it."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        wandb = _require("wandb")
        self.run = wandb.init(
            project=PROJECT,
            name=folder.name,
            id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder),
            config=dict(configuration),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class TrackioLog:
    """Trackio, which keeps its runs on this machine; the run bears its folder's name."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        trackio = _require("trackio")
        self.run = trackio.init(
            project=PROJECT, name=folder.name, resume="allow", config=dict(configuration)
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class TensorboardLog:
    """TensorBoard event files in the run's own folder ``tensorboard/``."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        _require("tensorboard")
        self.writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(
            log_dir=str(folder / "tensorboard")
        )
        lines = "".join(f"    {name} = {value}\n" for name, value in configuration.items())
        self.writer.add_text("configuration", lines)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"--log {module} needs the package {module}, which is not installed; "
            f"install it with `pip install -e '.[{module}]'`, or use --log none"
        ) from None


def open_log(kind: str, folder: Path, configuration: Mapping[str, Any]) -> Log:
    """Open the log named ``kind`` for the run in ``folder``.

    Raises:
        UserError: the kind is unknown, or its package is not installed.
    """
    if kind == "none":
        return NoLog()
    kinds: dict[str, Callable[[Path, Mapping[str, Any]], Log]] = {
        "wandb": WandbLog,
        "trackio": TrackioLog,
        "tensorboard": TensorboardLog,
    }
    if kind not in kinds:
        raise UserError(f"there is no log {kind!r}; choose one of {', '.join(KINDS)}")
    return kinds[kind](folder, configuration)


def check_log(kind: str) -> None:
    """Raise UserError before any work if ``open_log`` would: unknown, or not installed."""
    if kind not in KINDS:
        raise UserError(f"there is no log {kind!r}; choose one of {', '.join(KINDS)}")
    if kind != "none":
        _require(kind)
