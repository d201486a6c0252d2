"""How many cores a process may use: affinity, and the quota of a container, of either version."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from nanogpt2 import machines


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
