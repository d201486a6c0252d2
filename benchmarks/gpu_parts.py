"""What the stages of ``benchmarks.gpu`` do, most valuable first, and what each of their parts runs.

A part is a function of the benchmarks with its arguments on a GPU, and smaller ones for a rehearsal
on a processor.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.parts import as_row
from benchmarks.table import Row
from nanogpt2.rungs import TOP, Ladder

ROOT = Path(__file__).resolve().parent.parent
ATTENTION = ("fa3", "fa4", "fa2", "varlen", "banded")
SMALL_STEP = {"depth": 2, "tokens": 64, "rows": 2, "repeats": 1, "compiled": False}


@dataclass(frozen=True)
class Part:
    """A function ``module.name`` and what it is given."""

    module: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    """instead, in a rehearsal"""
    name: str = "measure"


@dataclass(frozen=True)
class Stage:
    """Parts that belong together, and take eight minutes at most."""

    name: str
    title: str
    parts: Mapping[str, Part]


def _step(recipe: str, depth: int, **more: Any) -> Part:
    """A step of 16 rows of 2,048 tokens; ``changes`` of the recipe and a backend may be given."""
    given = {"recipe_name": recipe, "depth": depth, "rows": 16, "tokens": 2048, **more}
    small = {name: value for name, value in more.items() if name == "changes"}
    return Part("step", given, {"recipe_name": recipe, **SMALL_STEP, **small})


def _test(*words: str) -> Part:
    return Part("gpu_parts", {"words": words}, {"words": words}, "tests")


def _speedrun(depth: int, minutes: float) -> Part:
    asked = {"recipe": "run1", "depth": depth, "minutes": minutes}
    return Part("gpu_parts", asked, {"recipe": "laptop", "depth": 2, "minutes": None}, "speedrun")


LADDER = [rung.key for rung in Ladder().rungs if "packing" not in rung.without]
"""a run of this kind packs its rows by best fit"""


def _without(key: str) -> Part:
    asked = {"key": key, "depth": 8, "steps": 300, "changes": {"batch_tokens": 2**17}}
    small = {"batch_tokens": 256, "sequence_len": 64, "vocab_size": 512}
    return Part("gpu_parts", asked, {"key": key, "depth": 2, "steps": 3, "changes": small}, "rung")


STAGES = (
    Stage(
        "tests",
        "what only a GPU can prove: compiled runs that resume to the bit, backends, fp8, NCCL",
        {
            "kernels": _test("tests/kernels"),
            "training": _test("tests/training", "tests/data"),
        },
    ),
    Stage(
        "step",
        "time, use of the peak and memory of a step, at the records' shapes",
        {
            "run1 d12": _step("run1", 12),
            "run6 d12": _step("run6", 12),
            "run1 d24": _step("run1", 24),
            "run6 d24": _step("run6", 24),
            "run6 d24 in bf16": _step("run6", 24, changes={"precision": "bf16"}),
        },
    ),
    Stage(
        "run",
        "run 1's recipe at depth 8, from documents to a report",
        {"run1 d8": _speedrun(8, 5.0)},
    ),
    Stage(
        "backends",
        "attention alone, and a step by each backend that can serve",
        {
            "attention": Part(
                "windows", {"lengths": (2048,)}, {"lengths": (256,), "device": "cpu", "rounds": 1}
            ),
            **{f"run1 d12 by {name}": _step("run1", 12, attention=name) for name in ATTENTION},
        },
    ),
    Stage(
        "variants",
        "forms of the loss, optimizers, and what the compiler buys",
        {
            "loss": Part("loss", {}, {"tokens": 256, "device": "cpu", "rounds": 1}),
            "AdamW for the matrices": _step("run1", 12, changes={"matrices": "adamw"}),
            "three steps of Polar Express": _step("run1", 12, changes={"muon.iterations": "3"}),
            "not compiled": _step("run1", 12, compiled=False),
        },
    ),
    Stage(
        "around",
        "what stands around the steps: data, CORE, writing",
        {
            "data": Part("data", {}, {"megabytes": 0.2, "rounds": 1}),
            "decode": Part(
                "decode",
                {"depth": 12},
                {"depth": 2, "recipe": "laptop", "prompt_tokens": 40, "new_tokens": 3},
            ),
            "core": Part(
                "core",
                {"depth": 12, "max_per_task": 10},
                {"depth": 2, "max_per_task": 1, "tasks": ["copa"]},
            ),
        },
    ),
    Stage(
        "ladder",
        "run 1 at depth 8 for 300 steps of 131,072 tokens, whole and without each technique",
        {key: _without(key) for key in (TOP, *LADDER)},
    ),
)


def rows_of(
    stage: str, part: str, device: str, small: bool, bundle: Path | None, data: Path | None
) -> list[Row]:
    """What one part finds, in this process."""
    chosen = next(s for s in STAGES if s.name == stage).parts[part]
    arguments = dict(chosen.small if small else chosen.arguments)
    if chosen.module == "core":
        from nanogpt2.data.bundle import find_bundle

        arguments["bundle"] = find_bundle(bundle)
    if chosen.name == "speedrun":
        arguments |= {"device": device, "data": data, "bundle": bundle}
    if chosen.name == "rung":
        arguments |= {"device": device, "data": data}
    function = getattr(importlib.import_module(f"benchmarks.{chosen.module}"), chosen.name)
    found = [as_row(row) for row in function(**arguments)]
    return [Row(stage, row.what, row.value, row.unit) for row in found]


def tests(words: tuple[str, ...]) -> list[Row]:
    """Run the tests below these folders that need a GPU; how many passed, failed, were skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "cuda", f"--junitxml={report}"]
        ended = subprocess.run([*command, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE)
        if not report.is_file():
            raise RuntimeError(f"pytest gave no report: {ended.stdout.strip()[-200:]}")
        cases = list(ET.parse(report).iter("testcase"))
    outcomes = {
        f"{case.get('classname')}::{case.get('name')}": next(
            (kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "ok"
        )
        for case in cases
    }
    rows = [Row("tests", name, float(kind == "ok"), kind) for name, kind in outcomes.items()]
    if bad := [name for name, kind in outcomes.items() if kind in ("failure", "error")]:
        print(ended.stdout, file=sys.stderr)
        raise RuntimeError(f"{len(bad)} of {len(rows)} tests failed: {', '.join(bad)}")
    return rows


def speedrun(
    recipe: str,
    depth: int,
    minutes: float | None,
    device: str,
    data: Path | None,
    bundle: Path | None,
) -> list[Row]:
    """The whole run as a person starts it, on one's own text; its figures, as it wrote them."""
    from nanogpt2.data.corpus import write_embedded_corpus

    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "text", Path(name) / "run"
        if data is None:
            write_embedded_corpus(folder)
        words = ["--recipe", recipe, "--depth", str(depth), "--device", device, "--out", str(out)]
        words += ["--data", str(data or folder), "--core-max-per-task", "20"]
        words += ["--core-bundle", str(bundle)] if bundle else []
        words += ["--minutes", str(minutes)] if minutes else ["--set", "steps=12"]
        subprocess.run([sys.executable, "-m", "nanogpt2.speedrun", *words], cwd=ROOT, check=True)
        training = json.loads((out / "training.json").read_text())
        facts = {"val_bpb": json.loads((out / "evaluation.json").read_text())["val_bpb"]}
        if (out / "core.json").is_file():
            facts["core"] = json.loads((out / "core.json").read_text())["core"]
        report = (out / "report.md").read_text(encoding="utf-8")
    units = {"seconds": "s", "tokens_per_second": "tokens/s", "memory_bytes": "bytes", "step": ""}
    facts |= {key: training[key] for key in (*units, "mfu") if training.get(key) is not None}
    assert "bits per byte" in report
    title = f"{recipe} d{depth}"
    return [Row("run", f"{title}: {k}", float(v), units.get(k, "")) for k, v in facts.items()]


def rung(
    key: str, depth: int, steps: int, changes: Mapping[str, Any], device: str, data: Path | None
) -> list[Row]:
    """Bits per byte after so many steps of run 1 at ``depth`` without one technique of the ladder.

    At run 1's rates: what this tells is how a technique acts on a GPU, not what it is worth.
    """
    from nanogpt2.data.corpus import write_embedded_corpus
    from nanogpt2.data.shards import find_shards
    from nanogpt2.data.tokenizer import Tokenizer, text_sample
    from nanogpt2.recipes import get_recipe
    from nanogpt2.run import Loop, Run
    from nanogpt2.training.trainer import train

    ladder = Ladder(base=get_recipe("run1", depth=depth, steps=steps, **changes))
    recipe = ladder.top if key == TOP else ladder.without(key)
    with tempfile.TemporaryDirectory() as name:
        folder, learned, out = (Path(name) / part for part in ("text", "tokenizer", "run"))
        if data is None:
            write_embedded_corpus(folder)
        sample = text_sample(find_shards(data or folder).train, 50_000_000)
        Tokenizer.train(sample, recipe.model.vocab_size).save(learned)
        watch = Loop(eval_every=0, eval_tokens=2**20 if depth > 2 else 256, checkpoint_every=0)
        result = train(Run(recipe, out, data or folder, learned, device=device, loop=watch))
    what = "whole" if key == TOP else f"without {key}"
    rows = [Row("ladder", f"d{depth}, {what}", float(result.val_bpb or 0), "bits per byte")]
    rate = result.tokens_per_second
    return [*rows, Row("ladder", f"d{depth}, {what}", rate, "tokens/s")] if rate else rows
