"""The evaluation bundle: where it is, what is in it, and what is wrong with it.

A folder in the layout of the public ``eval_bundle.zip``: ``core.yaml`` (the tasks),
``eval_meta_data.csv`` (random baselines), ``eval_data/`` (one JSON object a line) and the scores of
GPT-2's four sizes. CORE is of the DCLM paper (arXiv 2406.11794). Chapter: core.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from nanogpt2.errors import UserError
from nanogpt2.evals.core.tasks import Kind, Task
from nanogpt2.files import read_text

CORRECTED_BASELINES = {
    "commonsense_qa": 0.403,
    "agi_eval_lsat_ar": 0.25,
    "bigbench_language_identification": 0.25,
}
"""DCLM's second table of baselines (September 2025) where it differs from the first"""

GPT2_SIZES = {
    "124M": "openai-community-gpt2.csv",
    "355M": "openai-community-gpt2-medium.csv",
    "774M": "openai-community-gpt2-large.csv",
    "1.5B": "openai-community-gpt2-xl.csv",
}

CURE = "mend it or name a whole bundle (a downloaded one is fetched again once you delete it)"


def load_tasks(bundle_dir: Path | str, labels: Sequence[str] | None = None) -> list[Task]:
    """Every task of the bundle in its order, or those of ``labels``, with checked items.

    Raises UserError naming the file (and line) where one is missing or damaged.
    """
    bundle = Path(bundle_dir)
    entries = _read_entries(bundle / "core.yaml")
    baselines = _read_baselines(bundle / "eval_meta_data.csv")
    known = [entry["label"] for entry in entries]
    for label in labels or ():
        if label not in known:
            raise UserError(f"unknown task {label!r}; the bundle has {', '.join(known)}")
    wanted = [entry for entry in entries if labels is None or entry["label"] in labels]
    return [_load_task(bundle, entry, baselines) for entry in wanted]


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is missing from the evaluation bundle; {CURE}")
    return read_text(path, CURE)


def _read_entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = yaml.safe_load(_read_text(path))["icl_tasks"]
        for entry in entries:
            _check_entry(entry)
        if not entries:
            raise ValueError("it lists none")
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} does not describe tasks ({error!r}); {CURE}") from None
    return entries


def _check_entry(entry: Any) -> None:
    for value in (entry["label"], entry["dataset_uri"], entry.get("continuation_delimiter", " ")):
        if not isinstance(value, str):
            raise TypeError(f"a {type(value).__name__} where a text should be")
    path = PurePosixPath(entry["dataset_uri"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} is not in the bundle")
    Kind(entry["icl_task_type"])
    if not isinstance(entry["num_fewshot"][0], int) or entry["num_fewshot"][0] < 0:
        raise ValueError("num_fewshot is not a number of examples")


def _read_baselines(path: Path) -> dict[str, float]:
    """Label -> accuracy of guessing, in [0, 1); the file holds percent."""
    rows = csv.DictReader(_read_text(path).splitlines())
    try:
        return {row["Eval Task"]: 0.01 * float(row["Random baseline"]) for row in rows}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} does not list random baselines ({error!r}); {CURE}") from None


def _load_task(bundle: Path, entry: dict[str, Any], baselines: dict[str, float]) -> Task:
    label, kind = entry["label"], Kind(entry["icl_task_type"])
    metadata = bundle / "eval_meta_data.csv"
    if label not in baselines:
        raise UserError(f"{metadata} has no baseline for {label}; {CURE}")
    if not 0 <= baselines[label] < 1:
        raise UserError(
            f"{metadata}: the random baseline of {label} is {100 * baselines[label]:g}; it must be "
            "at least 0 and less than 100, the percentage that guessing gets right"
        )
    path = bundle / "eval_data" / entry["dataset_uri"]
    shots, has_categories = entry["num_fewshot"][0], bool(entry.get("has_categories", False))
    items = read_items(path, kind, {"category": str} if has_categories else {})
    if len(items) <= shots:
        raise UserError(f"{path} has {len(items)} examples and {label} shows {shots}; {CURE}")
    return Task(
        label=label,
        kind=kind,
        shots=shots,
        delimiter=entry.get("continuation_delimiter", " "),
        baseline=baselines[label],
        corrected_baseline=CORRECTED_BASELINES.get(label, baselines[label]),
        has_categories=has_categories,
        items=items,
    )


def read_items(path: Path, kind: Kind, more: Mapping[str, type]) -> list[dict[str, Any]]:
    """The examples of one file in its order; each has the ``kind``'s fields and ``more``.

    Raises UserError with file and line where JSON is broken, a field is missing or of the wrong
    type, a list of options is empty, the gold index is out of range or nothing is to be predicted.
    """
    items = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                items.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is not valid JSON ({error}); {CURE}") from None
            if fault := _fault(items[-1], kind, {**kind.fields, **more}):
                raise UserError(f"{where}{fault}; {CURE}")
    return items


def _fault(item: Any, kind: Kind, fields: Mapping[str, type]) -> str | None:
    """What is wrong with an example, to be said behind its place."""
    if not isinstance(item, dict):
        return " is not a JSON object"
    for name, wanted in fields.items():
        if name not in item:
            return f" has no field {name!r}"
        if not isinstance(item[name], wanted) or isinstance(item[name], bool):
            return f": field {name!r} is not a {wanted.__name__}"
    if kind.options_field is None:
        empty = not item["continuation"].strip()
        return " has an empty continuation, nothing to predict" if empty else None
    options, gold = item[kind.options_field], item["gold"]
    if not options or not all(isinstance(option, str) for option in options):
        return f": field {kind.options_field!r} is not a list of texts"
    if not 0 <= gold < len(options):
        return f": the gold index {gold} is out of range, there are {len(options)} options"
    return None


def published_scores(bundle_dir: Path | str) -> dict[str, dict[str, float]]:
    """Size of GPT-2 -> task label -> published accuracy, for the sizes the bundle has."""
    scores = {}
    for size, name in GPT2_SIZES.items():
        path = Path(bundle_dir) / name
        if not path.is_file():
            continue
        text = _read_text(path)
        try:
            table = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
            scores[size] = {row[0]: float(row[1]) for row in table[1:] if row and row[0] != "CORE"}
        except (IndexError, ValueError, csv.Error) as error:
            raise UserError(f"{path} is not a table of accuracies ({error}); {CURE}") from None
    return scores
