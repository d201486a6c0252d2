"""Where a run starts: at its beginning, or at a checkpoint of its own. Chapter: loop."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanogpt2.errors import UserError
from nanogpt2.files import require_free_space
from nanogpt2.training.checkpoint import (
    Shards,
    check_same_model,
    find_checkpoint,
    restore_model,
    restore_optimizer,
)
from nanogpt2.training.distributed import Ranks
from nanogpt2.training.settings import StepReport, TrainSettings
from nanogpt2.training.storage import (
    FOLDER,
    clean_partial,
    list_checkpoints,
    newest_whole,
    read_state,
    set_aside,
    step_of,
)

if TYPE_CHECKING:
    from nanogpt2.training.trainer import Trainer

LEARNING_FREE = ("name", "summary", "record", "device_batch_size")
"""fields of a recipe that may differ between the parts of a run"""


@dataclass(frozen=True)
class Start:
    """What a run takes up."""

    step: int = 0
    report: StepReport | None = None
    """the last one before the checkpoint"""
    best: float | None = None
    """lowest validation bits per byte so far"""
    data: Any = None
    """this rank's position in the data; None: the beginning"""
    folder: Path | None = None


def find_start(trainer: Trainer, tell: Callable[[str], None]) -> Start:
    """Restore model and optimizer from the checkpoint to continue, if there is one.

    Raises UserError when it is of another model, recipe or horizon.
    """
    settings, ranks = trainer.settings, trainer.ranks
    chosen = None
    if ranks.is_main:
        clean_partial(settings.out_dir)
        found = _choose(settings, tell)
        chosen = str(found) if found else None
        _prepare_disk(trainer)
    folder = ranks.share("resume from", chosen)
    _check_shared(settings.out_dir, ranks)
    if folder is None:
        return Start()
    return _restore(trainer, Path(folder), tell)


def _choose(settings: TrainSettings, tell: Callable[[str], None]) -> Path | None:
    """The checkpoint to continue, verified; damaged newer ones are set aside."""
    run, named = settings.out_dir, settings.resume_from
    if named is None and not settings.resume:
        if list_checkpoints(run):
            raise UserError(
                f"{run} holds checkpoints of an earlier run; continue it, choose another folder, "
                f"or delete {run / FOLDER}"
            )
        return None
    if named is None:
        found = newest_whole(run, tell)
        set_aside(run, step_of(found) if found else -1)
        return found
    found = find_checkpoint(named)
    later = [f for f in list_checkpoints(run) if step_of(f) > step_of(found)]
    if later:
        raise UserError(
            f"{run} holds later checkpoints ({later[0].name}) than {found.name}; delete them, or "
            "choose another folder, for they would be taken for those of this run"
        )
    return found


def _prepare_disk(trainer: Trainer) -> None:
    """Fail now, not after hours, where two checkpoints (one whole, one in the making) won't fit."""
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    state = trainer.optimizer.state_bytes() * trainer.ranks.world_size
    needed = 2 * (weights + state)
    require_free_space(trainer.settings.out_dir, needed, "keeping checkpoints")
    (trainer.settings.out_dir / FOLDER).mkdir(parents=True, exist_ok=True)


def _check_shared(run: Path, ranks: Ranks) -> None:
    """Raise UserError unless all ranks see the folder that rank 0 sees."""
    if ranks.world_size == 1:
        return
    probe = run / FOLDER / f".{uuid.uuid4().hex}"
    if ranks.is_main:
        probe.touch()
    probe = Path(ranks.share("probe", str(probe)))
    seen = probe.exists()
    all_see = ranks.sum([float(seen)])[0] == ranks.world_size
    if ranks.is_main:
        probe.unlink()
    if not seen:
        raise UserError(f"this machine does not see {run} of rank 0's; choose a shared folder")
    if not all_see:
        raise UserError(f"not every machine sees {run}; choose a folder that all of them share")


def _restore(trainer: Trainer, folder: Path, tell: Callable[[str], None]) -> Start:
    state, ranks = read_state(folder), trainer.ranks
    check_same_model(folder, state, trainer.config)
    _check_same_run(folder, state, trainer)
    restore_model(folder, trainer.model)
    shards = Shards(folder, state["world_size"])
    restore_optimizer(shards, trainer.optimizer, state["step"])
    report = _report(folder, state["progress"])
    tell(f"continuing from {folder.name}, {state['step']:,} of {trainer.steps:,} steps")
    if state["world_size"] != ranks.world_size:
        tell(f"{state['world_size']} ranks wrote it and {ranks.world_size} continue: resharded")
    data = position(shards.data, ranks.rank, ranks.world_size)
    return Start(state["step"], report, state["progress"].get("best_val_bpb"), data, folder)


def _check_same_run(folder: Path, state: dict[str, Any], trainer: Trainer) -> None:
    saved, wanted = dict(state["recipe"]), trainer.recipe.to_dict()
    saved |= {"steps": state.get("steps")}
    wanted |= {"steps": trainer.steps}
    for name in sorted(set(saved) | set(wanted)):
        # JSON has no tuples
        if name not in LEARNING_FREE and _plain(saved.get(name)) != _plain(wanted.get(name)):
            raise UserError(
                f"{folder} is of a run with another {name} ({_brief(saved.get(name))} there, "
                f"{_brief(wanted.get(name))} here); use the same settings, or another folder"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _report(folder: Path, progress: dict[str, Any]) -> StepReport:
    try:
        return StepReport(**progress["report"])
    except (KeyError, TypeError):
        raise UserError(
            f"{folder} does not say how far the run had come; use another checkpoint"
        ) from None


def position(saved: list[Any], rank: int, world_size: int) -> Any:
    """Where ``rank`` goes on reading: exactly where it was, if the number of ranks is the same.

    Else all ranks go on from the position of the one that was furthest behind, with row groups
    dealt out anew: no document is skipped but those in the old ranks' packing buffers, and a few
    are read twice.
    """
    if len(saved) == world_size:
        return saved[rank]
    try:
        return min(saved, key=lambda state: tuple(state["next"]))
    except (KeyError, TypeError):
        raise UserError("the data position in the checkpoint is damaged; use another one") from None
