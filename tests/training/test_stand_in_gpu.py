"""The branches that only an NVIDIA GPU takes, each executed with a stand-in or named as not.

``BRANCHES`` is held against the source: whoever adds such a branch says here which test takes it.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nanogpt2.data.loader import TokenLoader
from nanogpt2.launching import backend
from nanogpt2.machines import this_machine
from nanogpt2.model.gpt import GPT
from nanogpt2.training.metrics import peak_memory
from nanogpt2.training.ranks import choose_device
from nanogpt2.training.saver import Saver
from nanogpt2.training.setup import build_model, choose_precision, wants_compilation
from tests.drills.tiny_run import RECIPE

TESTS = Path(__file__).resolve().parent.parent
PACKAGE = TESTS.parent / "nanogpt2"
ON_A_GPU_ALONE = "on a GPU alone: "
BRANCHES = {
    "data/loader.py TokenLoader._on_device": "test_batches_are_pinned_and_sent",
    "evals/core/fast/scoring.py Scorer.max_tokens": "test_what_the_allocator_holds_without",
    "evals/core/fast/scoring.py Scorer.score": "test_a_batch_that_does_not_fit_is_halved",
    "kernels/backends.py _capability": ON_A_GPU_ALONE + "asks the driver",
    "kernels/backends.py _unsuited": "test_rules_for_gpus",
    "kernels/backends.py ranking": "test_the_best_kernel_at_hand_is_taken_on_hopper",
    "kernels/backends.py main": ON_A_GPU_ALONE + "probes every kernel that is installed",
    "kernels/fp8.py fp8_supported": ON_A_GPU_ALONE + "multiplies in fp8",
    "kernels/loss.py _choose": "test_a_gpu_takes_the_plain_form_where_it_fits",
    "kernels/loss.py free_bytes": "test_what_the_allocator_holds_without",
    "kernels/precision.py good_at_bf16": "test_the_precision_of_cards",
    "kernels/precision.py good_at_fp16": "test_the_precision_of_cards",
    "launching.py backend": "test_gpus_meet_over_nccl",
    "machines.py Machine.is_gpu": "test_a_card_in_use_takes_fewer_rows_a_pass",
    "machines.py this_machine": "test_the_machine_is_what_its_driver_says",
    "planning.py as_found": "test_a_card_in_use_takes_fewer_rows_a_pass",
    "training/feed.py Feed.cut": "test_smaller_passes_learn_what_a_smaller_batch_learns",
    "training/metrics.py peak_flops": "test_a_peak_is_the_one_that_the_planner_knows",
    "training/metrics.py peak_memory": "test_memory_is_what_the_allocator_held",
    "training/profiler.py Profiler.__init__": "test_the_memory_of_a_gpu_is_recorded",
    "training/profiler.py Profiler.begin": "test_the_memory_of_a_gpu_is_recorded",
    "training/profiler.py Profiler.end": "test_the_memory_of_a_gpu_is_recorded",
    "training/ranks.py Ranks.sum": ON_A_GPU_ALONE + "sends from pinned memory, and waits",
    "training/ranks.py choose_device": "test_a_rank_takes_its_gpu_and_keeps_its_memory_whole",
    "training/ranks.py join": ON_A_GPU_ALONE + "NCCL connects the ranks",
    "training/saver.py Saver._copied": "test_a_snapshot_is_pinned_and_waited_for",
    "training/setup.py build_model": "test_tables_are_bf16",
    "training/setup.py choose_precision": "test_the_precision_of_cards",
    "training/setup.py wants_compilation": "test_a_gpu_compiles_after_fewer_steps",
}
"""by file and function: the test that takes its branch, or why none can without the device"""
ROOMS = ("lab/", "studies/", "reporting/")
"""what runs beside a training: not looked at here"""


def speaks_of_a_gpu(node: ast.AST) -> bool:
    """torch.cuda.something, .is_cuda, or a comparison with "cuda"."""
    if isinstance(node, ast.Attribute):
        return node.attr == "is_cuda" or ast.unparse(node).startswith("torch.cuda.")
    words = [*node.comparators, node.left] if isinstance(node, ast.Compare) else []
    return any(isinstance(word, ast.Constant) and word.value == "cuda" for word in words)


def functions(tree: ast.AST, prefix: str = "") -> dict[str, ast.AST]:
    """By dotted name; what is defined inside a function is part of it."""
    found: dict[str, ast.AST] = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            found[prefix + node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= functions(node, f"{prefix}{node.name}.")
    return found


def test_every_branch_is_taken_by_a_test_or_named() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(ROOMS):
            for function, body in functions(ast.parse(path.read_text("utf-8"))).items():
                if any(map(speaks_of_a_gpu, ast.walk(body))):
                    found.add(f"{name} {function}")
    assert found == set(BRANCHES)
    tests = "\n".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    for branch, who in BRANCHES.items():
        if not who.startswith(ON_A_GPU_ALONE):
            assert re.search(rf"def {who}", tests), f"{branch}: there is no {who}"


@pytest.fixture
def fake() -> Any:
    """Tensors that say they are on a GPU, and hold nothing."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def test_batches_are_pinned_and_sent(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: (pinned.append(tensor), tensor)[1])
    loader = object.__new__(TokenLoader)
    loader.device = torch.device("cuda", 1)
    sent = loader._on_device(torch.from_numpy(np.zeros(6, dtype=np.int32)))
    assert sent.device == loader.device and len(pinned) == 1


def test_a_snapshot_is_pinned_and_waited_for(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: waited.append("for the copies"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    made, empty = [], torch.empty

    def noted(*sizes: Any, pin_memory: bool, **named: Any) -> Tensor:
        made.append(pin_memory)
        return empty(*sizes, **named)

    monkeypatch.setattr(torch, "empty", noted)
    saver = object.__new__(Saver)
    saver.buffers = {}
    copies = saver._copied({"a": torch.ones(3, device="cuda")})
    assert copies["a"].device.type == "cpu" and made[-1] is True and waited == ["for the copies"]


def test_tables_are_bf16(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for draw in ("uniform_", "normal_"):  # there is no generator to draw from
        monkeypatch.setattr(Tensor, draw, lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(GPT, "init_weights", lambda model, seed=0: None)
    narrowed: list[Any] = []
    monkeypatch.setattr(torch.nn.Embedding, "to", lambda table, to: narrowed.append((table, to)))
    model = build_model(RECIPE.model, torch.device("cuda"), "bf16", 0)
    assert model.wte.weight.is_cuda
    assert narrowed == [(t, torch.bfloat16) for t in (model.wte, *model.value_embeds.values())]


@pytest.mark.parametrize("chosen", [None, "backend:native"])
def test_a_rank_takes_its_gpu_and_keeps_its_memory_whole(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    """The allocator is told before CUDA starts, unless the user has told it something."""
    taken: list[int] = []
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    if chosen:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", chosen)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert choose_device("auto", 3) == torch.device("cuda", 3) and taken == [3]
    told = os.environ.pop("PYTORCH_ALLOC_CONF", None)
    assert told == (None if chosen else "expandable_segments:True")
    choose_device("cpu")
    assert "PYTORCH_ALLOC_CONF" not in os.environ


def test_memory_is_what_the_allocator_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert peak_memory(torch.device("cuda")) == 7


def test_a_gpu_compiles_after_fewer_steps() -> None:
    gpu = torch.device("cuda")
    assert [wants_compilation("auto", gpu, steps) for steps in (49, 50)] == [False, True]


@pytest.mark.parametrize(
    ("capability", "wanted", "runs_in"),
    [
        ((6, 1), "bf16", "fp32"),
        ((7, 5), "bf16", "fp16"),
        ((8, 0), "bf16", "bf16"),
        ((8, 0), "fp8", "bf16"),
        ((8, 9), "fp8", "fp8"),
        ((9, 0), "fp8", "fp8"),
    ],
)
def test_the_precision_of_cards(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], wanted: str, runs_in: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert choose_precision(wanted, torch.device("cuda"), forced=False)[0] == runs_in


def test_gpus_meet_over_nccl() -> None:
    assert [backend(kind) for kind in ("cuda", "cpu", "mps")] == ["nccl", "gloo", "gloo"]


@pytest.mark.parametrize(
    ("name", "kind", "known"),
    [("NVIDIA H100 80GB HBM3", "H100", True), ("NVIDIA Z9", "NVIDIA Z9", False)],
)
def test_the_machine_is_what_its_driver_says(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, known: bool
) -> None:
    sizes = [80 << 30, 79 << 30]
    driver = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda index=0: name,
        "get_device_properties": lambda index: SimpleNamespace(total_memory=sizes[index]),
        "get_device_capability": lambda index=0: (9, 0),
    }
    for function, answer in driver.items():
        monkeypatch.setattr(torch.cuda, function, answer)
    machine = this_machine("cuda")
    assert (machine.kind, machine.devices, machine.memory_bytes) == (kind, 2, 79 << 30)
    assert machine.bf16 and machine.fp8 and (machine.peak_flops is not None) == known
