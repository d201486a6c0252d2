"""Which devices are known, what this machine has, and how many of its cores a process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from nanogpt2 import machines
from nanogpt2.errors import UserError
from nanogpt2.machines import (
    ACCELERATORS,
    find_accelerator,
    processor_has_bf16,
    this_machine,
)


def with_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


GROUPS: dict[str, tuple[dict[str, str], float]] = {
    "no groups": ({}, math.inf),
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
    "a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000"}, 2.5),
    "a limit above": (
        {
            "proc/self/cgroup": "0::/user.slice/a.scope\n",
            "sys/fs/cgroup/user.slice/cpu.max": "150000 100000",
            "sys/fs/cgroup/user.slice/a.scope/cpu.max": "max 100000",
        },
        1.5,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/\n3:cpu,cpuacct:/docker/x\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
        },
        4.0,
    ),
    "nonsense": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "lots"}, math.inf),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_quota_of_processor_time_counts(tmp_path: Path, name: str) -> None:
    files, quota = GROUPS[name]
    assert machines._quota(with_files(tmp_path, files)) == quota


MEMORY: dict[str, tuple[dict[str, str], float]] = {
    "no limit": ({"memory.max": "max\n", "memory.current": "5"}, math.inf),
    "a container": (
        {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "inactive_file 50\n"},
        350,
    ),
    "all taken": (
        {"memory.max": "1000", "memory.current": "1100", "memory.stat": "inactive_file 0"},
        0,
    ),
    "nothing told": ({"memory.max": "1000"}, math.inf),
}


@pytest.mark.parametrize("name", MEMORY)
def test_a_limit_of_memory_counts(tmp_path: Path, name: str) -> None:
    files, room = MEMORY[name]
    own = {"proc/self/cgroup": "0::/a/b\n"}
    root = with_files(tmp_path, own | {f"sys/fs/cgroup/a/{n}": text for n, text in files.items()})
    assert machines._least(machines._room, root, "memory") == room
    assert machines.free_memory(root) <= room


def test_a_limit_of_memory_counts_in_version_1_too(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/docker/x/memory"
    files = {
        "proc/self/cgroup": "5:memory:/docker/x\n3:cpu:/\n",
        f"{folder}.limit_in_bytes": "4000\n",
        f"{folder}.usage_in_bytes": "1500\n",
        f"{folder}.stat": "cache 600\ntotal_inactive_file 500\n",
    }
    assert machines.free_memory(with_files(tmp_path, files)) == 3000


def test_cores_are_what_the_affinity_mask_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert machines.cores(tmp_path) == 6
    half = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"}
    assert machines.cores(with_files(tmp_path, half)) == 1
    four = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000"}
    assert machines.cores(with_files(tmp_path, four)) == 4
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machines.cores(tmp_path / "none") == 1


@pytest.mark.parametrize(
    ("nodes", "visible", "there"),
    [
        ((), None, False),
        (("nvidia3",), None, True),  # a container that was given the fourth GPU
        (("nvidiactl",), None, True),
        (("dxg",), None, True),
        (("kfd",), None, True),
        (("nvme0", "nvidia-uvm"), None, False),
        (("nvidia0",), "", False),
        (("nvidia0",), "-1", False),
        (("nvidia0", "nvidia1"), "1", True),
    ],
)
def test_a_gpu_is_looked_for_where_drivers_leave_their_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: tuple, visible: str | None, there: bool
) -> None:
    monkeypatch.setattr("nanogpt2.machines.sys.platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for name in nodes:
        (tmp_path / name).touch()
    assert machines.may_have_gpu(tmp_path) is there


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("Tesla V100-PCIE-16GB", "V100 PCIe"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 3070 Ti", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4060", None),
        ("AMD Instinct MI300X", "MI300X"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("Quadro T400", None),
        ("NVIDIA L40", None),
    ],
)
def test_names_of_devices(name, known):
    card = find_accelerator(name)
    assert (card.name if card else None) == known


def test_every_known_accelerator_is_found_by_its_own_name():
    assert all(find_accelerator(card.name) is card for card in ACCELERATORS)


def test_this_machine():
    machine = this_machine("cpu")
    assert machine.is_processor and machine.memory_bytes > 10**8
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no device .cuda. here"):
            this_machine("cuda")


def test_the_processors_flags_are_what_torch_sees(tmp_path):
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    assert processor_has_bf16() == any(getattr(torch.cpu, name, bool)() for name in checks)
    for flags, has in (("avx2 avx512f", False), ("avx2 avx512_bf16", True), ("amx_tile", True)):
        (tmp_path / flags).write_text(f"processor : 0\nflags : fpu {flags} sse\n")
        assert processor_has_bf16(tmp_path / flags) is has
