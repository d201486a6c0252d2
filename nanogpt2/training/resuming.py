"""Where a run starts: at its beginning, or at a checkpoint of its own. Chapter: loop."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanogpt2.data.source import Text, continued
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.evals.held_out import require_held_out
from nanogpt2.files import atomic_directory, mark, require_free_space, require_replaceable
from nanogpt2.run import Run, difference
from nanogpt2.training.checkpoint import (
    Shards,
    find_checkpoint,
    restore_model,
    restore_optimizer,
)
from nanogpt2.training.distributed import Ranks
from nanogpt2.training.settings import StepReport
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


@dataclass(frozen=True)
class Start:
    """What a run takes up."""

    text: Text
    """what it learns from and is measured on"""
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

    Raises UserError when it is of another model, recipe, horizon, seed, tokenizer or text, or when
    a later part of the run would fail. Nothing is written before all of that is known.
    """
    asked, ranks = trainer.asked, trainer.ranks
    chosen = None
    if ranks.is_main:
        found = _choose(asked, tell)
        text = _check(trainer, found)
        _prepare(trainer, found)
        chosen = [str(found) if found else None, text.to_record()]
    folder, record = ranks.share("resume from", chosen)
    text = Text.from_record(record)
    _check_shared(asked.out, ranks)
    if folder is None:
        return Start(text)
    return _restore(trainer, Path(folder), text, tell)


def _choose(asked: Run, tell: Callable[[str], None]) -> Path | None:
    """The checkpoint to continue, verified."""
    run, named = asked.out, asked.resume_from
    if named is None and not asked.resume:
        if list_checkpoints(run):
            raise UserError(
                f"{run} holds checkpoints of an earlier run; continue it, choose another folder, "
                f"or delete {run / FOLDER}"
            )
        return None
    if named is None:
        return newest_whole(run, tell)
    found = find_checkpoint(named)
    later = [f for f in list_checkpoints(run) if step_of(f) > step_of(found)]
    if later:
        raise UserError(
            f"{run} holds later checkpoints ({later[0].name}) than {found.name}; delete them, or "
            "choose another folder, for they would be taken for those of this run"
        )
    return found


def _check(trainer: Trainer, found: Path | None) -> Text:
    """Whether the run can go on from ``found`` to its end; the text with which it does."""
    asked, config = trainer.asked, trainer.config
    text = Text.of(asked.data_dir)
    if found is not None:
        state = read_state(found)
        _check_same_run(found, state, trainer)
        if "text" in state:
            began = Text.from_record(state["text"])
            text = continued(began, text, asked.more_data)
    if trainer.will_measure:
        held_out = text.paths(asked.data_dir, "held_out")
        require_held_out(held_out, trainer.tokenizer, config.sequence_len)
    keeps_tokenizer(asked, trainer.tokenizer)
    return text


def keeps_tokenizer(asked: Run, tokenizer: Tokenizer) -> bool:
    """Whether the run's folder holds its tokenizer already; UserError where it holds another."""
    kept = asked.out / "tokenizer"
    try:
        same = Tokenizer.load(kept).digest == tokenizer.digest
    except UserError:  # none, or not a whole one
        require_replaceable(kept, asked.tokenizer_dir)
        return False
    if not same:
        raise UserError(
            f"{kept} holds another tokenizer than {asked.tokenizer_dir}; give that one "
            "(--tokenizer), or choose another folder for the run (--out)"
        )
    return True


def keep_tokenizer(asked: Run, tokenizer: Tokenizer) -> None:
    """A run holds its tokenizer: a model without it is of no use."""
    if not keeps_tokenizer(asked, tokenizer):
        kept = asked.out / "tokenizer"
        with atomic_directory(kept, asked.tokenizer_dir) as temporary:
            shutil.copytree(asked.tokenizer_dir, temporary, dirs_exist_ok=True)


def _prepare(trainer: Trainer, found: Path | None) -> None:
    """The first that is written: leftovers go, and two checkpoints (whole, in the making) fit."""
    run = trainer.asked.out
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    state = trainer.optimizer.state_bytes() * trainer.ranks.world_size
    require_free_space(run, 2 * (weights + state), "keeping checkpoints")
    mark(run)
    clean_partial(run)
    if trainer.asked.resume_from is None:  # newer ones that are damaged must not count as kept
        set_aside(run, step_of(found) if found else -1)
    (run / FOLDER).mkdir(parents=True, exist_ok=True)


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


def _restore(trainer: Trainer, folder: Path, text: Text, tell: Callable[[str], None]) -> Start:
    state, ranks = read_state(folder), trainer.ranks
    restore_model(folder, trainer.model)
    shards = Shards(folder, state["world_size"])
    restore_optimizer(shards, trainer.optimizer, state["step"])
    report = _report(folder, state["progress"])
    tell(f"continuing from {folder.name}, {state['step']:,} of {trainer.steps:,} steps")
    if state["world_size"] != ranks.world_size:
        tell(f"{state['world_size']} ranks wrote it and {ranks.world_size} continue: resharded")
    data = position(shards.data, ranks.rank, ranks.world_size)
    best = state["progress"].get("best_val_bpb")
    return Start(text, state["step"], report, best, data, folder)


def _check_same_run(folder: Path, state: dict[str, Any], trainer: Trainer) -> None:
    now = trainer.asked.identity()
    begun = state.get("identity")
    if not isinstance(begun, dict):
        begun = _identity_before(folder, state, trainer.steps, now)
    # its text is told by digests, wherever it lies
    if what := difference({**begun, "data": now["data"]}, now):
        raise UserError(
            f"{folder} is of another run ({what}); use the same settings, or another folder"
        )
    if state.get("tokenizer", trainer.tokenizer.digest) != trainer.tokenizer.digest:
        raise UserError(
            f"{folder} is of a run with another tokenizer than {trainer.asked.tokenizer_dir}; "
            "give the run's own (--tokenizer), or choose another folder"
        )


def _identity_before(
    folder: Path, state: dict[str, Any], steps: int, now: dict[str, Any]
) -> dict[str, Any]:
    """Of the run in a checkpoint of before there were identities.

    Depth and steps could be asked for beside the recipe; the precision was not kept.
    """
    try:
        recipe = {name: state["recipe"].get(name) for name in now["recipe"]}
        recipe |= {"depth": state["model"]["n_layer"], "precision": now["recipe"]["precision"]}
        same_length = state["steps"] == steps
        recipe["iterations"] = now["recipe"]["iterations"] if same_length else state["steps"]
        return {**now, "recipe": recipe, "seed": state["seed"]}
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{folder} does not say of which run it is; use another one") from None


def _report(folder: Path, progress: dict[str, Any]) -> StepReport:
    try:
        return StepReport(**progress["report"])
    except (KeyError, TypeError):
        raise UserError(
            f"{folder} does not say how far the run had come; use another checkpoint"
        ) from None


def position(saved: list[Any], rank: int, world_size: int) -> Any:
    """Where ``rank`` goes on reading: exactly where it was, if the number of ranks is the same.

    Else all ranks go on from the position of the one that was furthest behind, with the documents
    that come after it dealt out anew, and so with those before it that still stood in the old
    ranks' packing buffers: no document is skipped, and a few are read twice.
    """
    if len(saved) == world_size:
        return saved[rank]
    try:
        place = min(tuple(state["next"]) for state in saved)
        waiting = sorted({tuple(entry) for state in saved for entry in state["buffer"]})
        buffer = [list(entry) for entry in waiting if entry < place][rank::world_size]
    except (KeyError, TypeError):
        raise UserError("the data position in the checkpoint is damaged; use another one") from None
    mine = {"rank": rank, "world_size": world_size, "unit": None}  # what is fair for that many
    return {"next": list(place), "buffer": buffer, **mine}
