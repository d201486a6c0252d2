"""Recorded experiments: one JSON a run under ``book/results/``, with where each number is from.

A record carries its own SHA-256, so that a figure edited by hand is noticed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import nanogpt2
from nanogpt2.errors import UserError
from nanogpt2.files import read_json, write_json
from nanogpt2.reporting.machine import commit, processor_name

CURE = "restore it from the repository, or move it away and make it again with its command"


@dataclass(frozen=True)
class Record:
    """One run: what was run, where, and what came out."""

    name: str
    command: str
    """what anyone can type to repeat it"""
    configuration: Mapping[str, Any]
    configuration_hash: str
    commit: str
    """of the code that ran; ends in "+changes" where files had been edited"""
    device: str
    torch: str
    seed: int
    tokens: int
    """trained on"""
    seconds: float
    curve: Sequence[Mapping[str, float]]
    """one mapping per evaluation: step, tokens, loss, bpb, seconds ..."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """what the book quotes"""
    note: str = ""
    version: str = ""
    """of nanogpt2"""


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def results_folder() -> Path:
    """``book/results/`` of the checkout, or the folder that NANOGPT2_RESULTS names."""
    if named := os.environ.get("NANOGPT2_RESULTS"):
        return Path(named)
    package = Path(nanogpt2.__file__).resolve().parent.parent
    for root in (package, *Path.cwd().resolve().parents, Path.cwd().resolve()):
        if (root / "book" / "results").is_dir():
            return root / "book" / "results"
    raise UserError(
        "book/results/ was not found; work in a clone of the repository, "
        "or set NANOGPT2_RESULTS to the folder"
    )


def record(
    name: str,
    *,
    command: str,
    configuration: Mapping[str, Any],
    seed: int,
    tokens: int,
    seconds: float,
    curve: Sequence[Mapping[str, float]],
    results: Mapping[str, Any] | None = None,
    note: str = "",
    device: str | None = None,
    folder: Path | str | None = None,
) -> Path:
    """Write a run as ``NAME.json`` with its provenance; returns the path.

    Raises UserError where a value is not plain JSON, or the name is not a plain file name.
    """
    if not name or any(c not in "abcdefghijklmnopqrstuvwxyz0123456789-_." for c in name):
        raise UserError(f"{name!r} is no name for a record; use a-z, 0-9, - and _")
    entry = Record(
        name=name,
        command=command,
        configuration=dict(configuration),
        configuration_hash="",
        commit=commit(changed="+changes") or "unknown",
        device=device or describe_device(),
        torch=torch.__version__,
        seed=seed,
        tokens=tokens,
        seconds=seconds,
        curve=[dict(point) for point in curve],
        results=dict(results or {}),
        note=note,
        version=str(nanogpt2.__version__),
    )
    try:
        # through JSON and back, so that the hash is of what a reader will find in the file
        body = json.loads(json.dumps(asdict(entry), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"the record {name} cannot be written as JSON ({error})") from None
    body["configuration_hash"] = digest(body["configuration"])
    path = Path(folder or results_folder()) / f"{name}.json"
    write_json(path, {**body, "sha256": digest(body)})
    return path


def recorded(name: str, folder: Path | str | None = None) -> Record:
    """Read a run; UserError where it is missing, damaged or edited by hand."""
    path = Path(folder or results_folder()) / f"{name}.json"
    body = read_json(path, CURE)
    stated = body.pop("sha256", None) if isinstance(body, dict) else None
    if stated is None or stated != digest(body):
        raise UserError(f"{path} is not what was recorded: its SHA-256 differs; {CURE}")
    try:
        entry = Record(**body)
    except TypeError:
        raise UserError(f"{path} has other fields than this version's records; {CURE}") from None
    if entry.configuration_hash != digest(entry.configuration):
        raise UserError(f"{path}: the hash of its configuration differs; {CURE}")
    return entry


def describe_device() -> str:
    """The accelerator, or the processor and how many threads torch uses of it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {torch.get_num_threads()} threads"
