"""Where a run starts: at its beginning, or at a checkpoint of its own. Chapter: loop.

Rank 0 chooses the checkpoint, hashes it, and compares it with what the run is; the others wait for
its word. Then it reads the model, which reaches the others as every start does, and each rank reads
its own share of the optimizer: the same ranks go on bit for bit, others are dealt theirs anew.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanogpt2.data.source import Text, continued
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.files import atomic_directory, mark, require_free_space, require_replaceable
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import MuonAdamW
from nanogpt2.run import Run, difference, require_same_length
from nanogpt2.training.checkpoint import (
    FOLDER,
    clean_partial,
    damaged,
    find_checkpoint,
    list_checkpoints,
    newest_whole,
    read_state,
    restore,
    set_aside,
    step_of,
)
from nanogpt2.training.length import Length, is_open, known, write
from nanogpt2.training.onward import take_weights
from nanogpt2.training.ranks import Ranks
from nanogpt2.training.settings import StepReport

SHARED_SECONDS = 60.0
"""how long a network disk may take to show one machine what another has written"""


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
    loss_scale: dict[str, float] | None = None
    """what ``LossScale`` kept, of a part of the run in fp16"""
    length: Length | None = None
    """as it was set by the clock; None: it was not, or not yet"""
    sets_length: bool = False
    """whether it is still to be set"""


def find_start(
    asked: Run,
    identity: Mapping[str, Any],
    model: GPT,
    optimizer: MuonAdamW,
    ranks: Ranks,
    check: Callable[[Text], None] = lambda text: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Start:
    """Fill model and optimizer from the checkpoint to continue, if there is one.

    Where there is none, and ``asked.init_from`` names a model, with that one's weights.

    Args:
        identity: what the run is, as its checkpoints say it: model, recipe, ``Run.identity``, and
            the tokenizer's digest.
        check: raises UserError where a later part of the run would fail with that text.

    Raises UserError when the checkpoint is of another run, or has learned from another text.
    Nothing is written before all of that is known.
    """

    def choose() -> list[Any]:
        """Rank 0: the checkpoint, its state, and the text to go on with."""
        found = _choose(asked, tell)
        state = read_state(found) if found else {}
        text = Text.of(asked.data_dir)
        if found is not None:
            with damaged(found):
                require_same_run(state, identity, asked)
                began = Text.from_record(state["text"])
            text = continued(began, text, asked.more_data)
        check(text)
        has_tokenizer = _has_tokenizer(asked, identity["tokenizer"])
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        size += optimizer.state_bytes() * ranks.world_size
        require_free_space(asked.out, 2 * size, "keeping checkpoints")
        with damaged(found) if found else nullcontext():
            length = known(asked, state) if found or asked.resume else None
        if found is None and asked.init_from is not None:
            take_weights(asked, model)
            tell(f"starting from {asked.init_from}, at {asked.rates:g} times the recipe's rates")
        sets = asked.loop.minutes is not None and length is None and is_open(state)
        _prepare(asked, found, has_tokenizer)
        write(asked, length)
        return [found and str(found), state, text.to_record(), length and asdict(length), sets]

    name, state, record, set_before, sets = ranks.share(choose)
    text, length = Text.from_record(record), Length(**set_before) if set_before else None
    _require_shared(asked.out, ranks)
    steps = length.steps if length else asked.dial.iterations
    if length:
        tell(f"its length was set when it began: {length.why}")
    if name is None:
        ranks.broadcast(model)
        return Start(text, length=length, sets_length=sets)
    folder, step, world_size = Path(name), state["step"], state["world_size"]
    positions = restore(folder, state, model if ranks.is_main else None, optimizer)
    ranks.broadcast(model)
    with damaged(folder):
        progress = state["progress"]
        best, scale = progress.get("best_val_bpb"), progress.get("loss_scale")
        report = StepReport(**progress["report"])
        data = position(positions, ranks.rank, ranks.world_size)
    tell(f"continuing from {folder.name}, {step:,} of {steps:,} steps")
    if world_size != ranks.world_size:
        tell(f"{world_size} ranks wrote it and {ranks.world_size} continue: resharded")
    return Start(text, step, report, best, data, folder, scale, length, sets)


def _choose(asked: Run, tell: Callable[[str], None]) -> Path | None:
    """The checkpoint to continue, verified."""
    run, named = asked.out, asked.resume_from
    if named is None and asked.resume:
        return newest_whole(run, tell)
    kept = list_checkpoints(run)
    if named is None:
        if kept:
            raise UserError(
                f"{run} holds checkpoints of an earlier run; continue it, choose another folder, "
                f"or delete {run / FOLDER}"
            )
        return None
    found = find_checkpoint(named)
    if kept and step_of(kept[0]) > read_state(found)["step"]:  # its folder may have any name
        if asked.resume and run.resolve() not in found.resolve().parents:
            return newest_whole(run, tell) or found  # it began there, and has come further
        raise UserError(
            f"{run} holds later checkpoints ({kept[0].name}) than {found.name}; delete them, or "
            "choose another folder, for they would be taken for those of this run"
        )
    return found


def require_same_run(state: Mapping[str, Any], identity: Mapping[str, Any], asked: Run) -> None:
    """Raise UserError unless the checkpoint's ``state`` is of the run that ``identity`` tells."""
    now = identity["identity"]
    begun = state["identity"]
    if is_open(state):  # nothing has come of its minutes yet
        begun = {**begun, "minutes": now.get("minutes")}
    # its text is told by digests, wherever it lies
    if what := difference({**begun, "data": now["data"]}, now):
        require_same_length(what, asked.out)
        raise UserError(
            f"it is of another run ({what}); use the same settings, or another folder (--out)"
        )
    if state["tokenizer"] != identity["tokenizer"]:
        raise UserError(
            "it is of a run with another tokenizer than the one given; name the run's own "
            "(--tokenizer), or choose another folder"
        )


def _has_tokenizer(asked: Run, digest: str) -> bool:
    """Whether the run's folder holds its tokenizer already; UserError where it holds another."""
    kept = asked.out / "tokenizer"
    try:
        same = Tokenizer.load(kept).digest == digest
    except UserError:  # none, or not a whole one
        require_replaceable(kept, asked.tokenizer_dir)
        return False
    if not same:
        raise UserError(
            f"{kept} holds another tokenizer than {asked.tokenizer_dir}; give that one "
            "(--tokenizer), or choose another folder for the run (--out)"
        )
    return True


def _prepare(asked: Run, found: Path | None, has_tokenizer: bool) -> None:
    """The first that is written: the run's marks and its tokenizer; leftovers go."""
    run = asked.out
    mark(run)
    clean_partial(run)
    if asked.resume_from is None:  # newer ones that are damaged must not count as kept
        set_aside(run, step_of(found) if found else -1)
    (run / FOLDER).mkdir(parents=True, exist_ok=True)
    if not has_tokenizer:  # a model without it is of no use
        with atomic_directory(run / "tokenizer", asked.tokenizer_dir) as temporary:
            shutil.copytree(asked.tokenizer_dir, temporary, dirs_exist_ok=True)


def _require_shared(run: Path, ranks: Ranks) -> None:
    """Raise UserError unless all ranks see the folder that rank 0 sees."""
    if ranks.world_size == 1:
        return
    probe = run / FOLDER / f".{uuid.uuid4().hex}"
    if ranks.is_main:
        probe.touch()
    probe = Path(ranks.share(lambda: str(probe)))
    deadline = time.monotonic() + SHARED_SECONDS
    while not (seen := probe.exists()) and time.monotonic() < deadline:
        time.sleep(0.2)
    ranks.barrier()
    if ranks.is_main:
        probe.unlink()
    if not seen:  # which ends the others too
        raise UserError(f"this machine does not see {run} of rank 0's; choose a shared folder")


def position(saved: list[Any], rank: int, world_size: int) -> Any:
    """Where ``rank`` goes on reading: exactly where it was, if the number of ranks is the same.

    Else all ranks go on, in each source, from the position of the one that was furthest behind,
    with the documents that come after it dealt out anew, and so with those before it that still
    stood in the old ranks' packing buffers: no document is skipped, and a few are read twice.
    """
    # before mixtures had a loader in common, the place in a single source stood by itself
    saved = [state if "sources" in state else {"sources": [state]} for state in saved]
    if len(saved) == world_size:
        return saved[rank]

    def dealt(states: Sequence[Any]) -> dict[str, Any]:
        place = min(tuple(state["next"]) for state in states)
        waiting = sorted({tuple(entry) for state in states for entry in state["buffer"]})
        buffer = [entry for entry in waiting if entry < place][rank::world_size]
        return {"rank": rank, "world_size": world_size, "next": place, "buffer": buffer}

    each = zip(*(state["sources"] for state in saved), strict=True)
    return {"sources": list(map(dealt, each)), "given": saved[0].get("given", [])}
