"""Machines to train on: what is known of accelerators, and what this machine has.

Figures are the makers': dense peaks without sparsity, sums in fp32, board power. They come from
data sheets; of GeForce cards from NVIDIA's white papers on GA102 and Ada (RTX 3060 and 4060 Ti by
the arithmetic of these: cores x 2 x boost clock in fp32, twice that in bf16); of the RX 7900 XTX
from AMD's product page. No torch is needed but to look at this machine.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from nanogpt2.errors import UserError
from nanogpt2.reported import NODE_DOLLARS_PER_HOUR

GB = 10**9


@dataclass(frozen=True)
class Accelerator:
    """One kind of device."""

    name: str
    memory_bytes: int
    peak_bf16: float | None
    """dense FLOP/s in bf16; None where bf16 is not native"""
    peak_fp32: float
    """FLOP/s in fp32 (TF32 where the card has it)"""
    fp8: bool
    """has fp8 products, at twice the rate of bf16"""
    watts: float
    """board power"""
    peak_fp16: float | None = None
    """dense FLOP/s in fp16, where there is no bf16; else they are alike"""


ACCELERATORS = (  # the first whose name is in the device's own name counts
    Accelerator("GB300", 288 * GB, 2.5e15, 1.25e15, True, 1400),
    Accelerator("GB200", 186 * GB, 2.5e15, 1.25e15, True, 1200),
    Accelerator("B300", 288 * GB, 2.25e15, 1.1e15, True, 1400),
    Accelerator("B200", 180 * GB, 2.25e15, 1.1e15, True, 1000),
    Accelerator("GH200", 96 * GB, 989e12, 494e12, True, 700),
    Accelerator("H200", 141 * GB, 989e12, 494e12, True, 700),
    Accelerator("H100 NVL", 94 * GB, 835e12, 417e12, True, 400),
    Accelerator("H100 PCIe", 80 * GB, 756e12, 378e12, True, 350),
    Accelerator("H100", 80 * GB, 989e12, 494e12, True, 700),
    Accelerator("H800", 80 * GB, 989e12, 494e12, True, 700),
    Accelerator("A100", 80 * GB, 312e12, 156e12, False, 400),
    Accelerator("A800", 80 * GB, 312e12, 156e12, False, 400),
    Accelerator("L40S", 48 * GB, 362e12, 183e12, True, 350),
    Accelerator("L4", 24 * GB, 121e12, 60e12, True, 72),
    Accelerator("A10G", 24 * GB, 70e12, 35e12, False, 300),
    Accelerator("A10", 24 * GB, 125e12, 62.5e12, False, 150),
    Accelerator("RTX 5090", 32 * GB, 209.5e12, 104.8e12, True, 575),
    Accelerator("RTX 4090", 24 * GB, 165.2e12, 82.6e12, True, 450),
    Accelerator("RTX 4080", 16 * GB, 97.5e12, 48.7e12, True, 320),
    Accelerator("RTX 4060 Ti", 16 * GB, 44.1e12, 22.1e12, True, 165),
    Accelerator("RTX 3090", 24 * GB, 71e12, 35.6e12, False, 350),
    Accelerator("RTX 3080", 10 * GB, 59.5e12, 29.8e12, False, 320),
    Accelerator("RTX 3070", 8 * GB, 40.6e12, 20.3e12, False, 220),
    Accelerator("RTX 3060", 12 * GB, 25.4e12, 12.7e12, False, 170),
    Accelerator("MI300X", 192 * GB, 1307e12, 653e12, False, 750),  # its fp8 is not NVIDIA's
    Accelerator("RX 7900 XTX", 24 * GB, 122.8e12, 61.4e12, False, 355),
    Accelerator("V100 PCIe", 16 * GB, None, 14e12, False, 250, peak_fp16=112e12),
    Accelerator("V100", 16 * GB, None, 15.7e12, False, 300, peak_fp16=125e12),
    Accelerator("T4", 16 * GB, None, 8.1e12, False, 70, peak_fp16=65e12),
)

OTHER_CARDS = r"\s*(?:Ti|SUPER|Laptop|Max-Q|D)\b"
"""what makes of a card's name that of another, with other figures"""
FP8_CAPABILITY = (8, 9)
"""CUDA compute capability (Ada, Hopper) from which tensor cores multiply fp8"""

# A core of a current x86 processor in bf16, and its power: rough, good to a factor of two or three.
CORE_FLOPS, CORE_WATTS = 2e11, 12.0
CORE_FP32 = 0.25  # of that in fp32
# What Jan 2026's run paid for an H100; other prices are the reader's to give.
H100_DOLLARS_PER_HOUR = NODE_DOLLARS_PER_HOUR / 8


BELOW_FP32 = ("fp8", "bf16", "fp16")
"""precisions of products that a machine may be good at: fields of ``Machine``"""


@dataclass(frozen=True)
class Machine:
    """What a run is planned for: equal devices, and what they cost."""

    kind: str
    """name of the device, or ``cpu``"""
    devices: int
    """ranks; a processor is one device unless ranks share it"""
    memory_bytes: int
    """of each device"""
    peak_flops: float | None
    """FLOP/s of each device in the precision it is good at; None where it is not known"""
    bf16: bool = True
    """bf16 products are native"""
    fp16: bool = False
    """there are no bf16 products, and those in fp16 are much faster than in fp32"""
    peak_fp32: float | None = None
    """FLOP/s of each device in fp32, where that is known to be another number"""
    fp8: bool = False
    """fp8 products are native"""
    dollars_per_hour: float | None = None
    """of the whole machine"""
    watts: float | None = None
    """of each device, at most, without the machine around it"""

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise UserError(f"devices is {self.devices}; a machine has at least 1")
        if self.memory_bytes < 1:
            raise UserError(f"memory is {self.memory_bytes} bytes; it must be positive")
        price = self.dollars_per_hour
        if price is not None and not 0 <= price < math.inf:
            raise UserError(f"the price is {price} dollars an hour; give 0 or more")

    @property
    def native(self) -> set[str]:
        """Kinds of products below fp32 that it is good at."""
        return {kind for kind in BELOW_FP32 if getattr(self, kind)}

    @property
    def is_processor(self) -> bool:
        """A CPU rather than an accelerator."""
        return self.kind == "cpu"

    @property
    def device(self) -> str:
        """What torch calls it: cpu, mps, or cuda (AMD's too)."""
        return self.kind if self.kind in ("cpu", "mps") else "cuda"

    @property
    def is_gpu(self) -> bool:
        """Of NVIDIA's, or of AMD's."""
        return self.device == "cuda"

    def with_devices(self, devices: int) -> Machine:
        """The same machine with another number of devices; ranks on a processor share it."""
        if devices < 1:
            raise UserError(f"devices is {devices}; a machine has at least 1")
        if not self.is_processor:
            price = self.dollars_per_hour
            if price is not None:
                price *= devices / self.devices
            return replace(self, devices=devices, dollars_per_hour=price)
        part = self.devices / devices
        return replace(
            self,
            devices=devices,
            memory_bytes=int(self.memory_bytes * part),
            peak_flops=None if self.peak_flops is None else self.peak_flops * part,
            watts=None if self.watts is None else self.watts * part,
        )

    def describe(self) -> str:
        """8 x H100, 80 GB each."""
        return f"{self.devices} x {self.kind}, {self.memory_bytes / GB:.0f} GB each"


def find_accelerator(name: str) -> Accelerator | None:
    """The known accelerator that ``name`` (such as "NVIDIA H100 80GB HBM3") speaks of."""

    def speaks_of(card: Accelerator) -> bool:
        words = r"[\s-]*".join(card.name.split())
        pattern = rf"\b{words}\b(?!{OTHER_CARDS})"
        return re.search(pattern, name, re.IGNORECASE) is not None

    return next(filter(speaks_of, ACCELERATORS), None)


def machine_of(kind: str, devices: int = 1) -> Machine:
    """A machine of ``devices`` accelerators of a known kind; UserError names the known ones."""
    card = find_accelerator(kind)
    if card is None:
        known = ", ".join(card.name for card in ACCELERATORS)
        raise UserError(f"unknown machine {kind!r}; choose one of {known}, cpu or auto")
    priced = card.name == "H100"
    return Machine(
        kind=card.name,
        devices=devices,
        memory_bytes=card.memory_bytes,
        peak_flops=card.peak_bf16 or card.peak_fp16 or card.peak_fp32,
        bf16=card.peak_bf16 is not None,
        fp16=card.peak_bf16 is None and card.peak_fp16 is not None,
        peak_fp32=card.peak_fp32,
        fp8=card.fp8,
        dollars_per_hour=H100_DOLLARS_PER_HOUR * devices if priced else None,
        watts=card.watts,
    )


def precision_of_products(wanted: str, forced: bool, native: Collection[str]) -> str:
    """What products run in (fp32, bf16, fp8) on a machine that is good at the ``native`` ones.

    The one place that decides it: for the run (``nanogpt2.training.setup``) and for its plan.

    Args:
        wanted: by the user or the recipe.
        forced: by the user, by name; what a machine is slow at it does all the same, but for fp8.
    """
    if wanted == "fp32" or wanted in native or (forced and wanted != "fp8"):
        return wanted
    return next((kind for kind in BELOW_FP32 if kind in native and kind != "fp8"), "fp32")


def processor() -> Machine:
    """This machine's processor, with the memory that is free now."""
    bf16 = processor_has_bf16()
    return Machine(
        "cpu",
        devices=1,
        memory_bytes=free_memory(),
        peak_flops=cores() * CORE_FLOPS * (1 if bf16 else CORE_FP32),
        bf16=bf16,
        watts=cores() * CORE_WATTS,
    )


@cache
def processor_has_bf16(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies bf16 (AVX512-BF16 or AMX); torch is asked but on Linux."""
    if info.is_file():
        flags = info.read_text(encoding="utf-8", errors="replace").split()
        return bool({"avx512_bf16", "amx_tile"} & set(flags))
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def cores(root: Path = Path("/")) -> int:
    """Processor cores that this process may keep busy: what its affinity mask (``taskset``) and its
    container's quota of processor time (cgroups, below ``root``) leave of the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)
    here = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min(here, _quota(root))))


def _quota(root: Path) -> float:
    """Cores' worth of time that the groups of this process may take; inf without a limit."""
    return _least(_limit, root, "cpu")


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: what is free, if its container's limit (cgroups,
    below ``root``) does not leave less."""
    import psutil

    return int(min(psutil.virtual_memory().available, _least(_room, root, "memory")))


def _least(of_group: Callable[[Path], float], root: Path, kind: str) -> float:
    """What the groups of this process, and those above them, leave of a ``kind``; inf: no limit."""
    least = math.inf
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kinds, group = line.split(":", 2)  # 0::/a/b, or 3:cpu,cpuacct:/a/b in version 1
            base = root / "sys/fs/cgroup" / (kind if kind in kinds.split(",") else "")
            for folder in (base / group.strip("/"), *(base / group.strip("/")).parents):
                with suppress(OSError, ValueError, IndexError, KeyError, ZeroDivisionError):
                    least = min(least, of_group(folder))
    return least


def _limit(folder: Path) -> float:
    """Of one group: "max 100000" or "150000 100000" (microseconds of time, in each period)."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text().split()
    else:
        quota, period = ((folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
    return math.inf if quota == "max" or int(quota) < 0 else int(quota) / int(period)


def _room(folder: Path) -> float:
    """Of one group: its limit less what it holds; files that it has read can be let go."""
    new = (folder / "memory.max").exists()
    names = ("max", "current") if new else ("limit_in_bytes", "usage_in_bytes")
    limit, held = ((folder / f"memory.{name}").read_text().strip() for name in names)
    if limit == "max":
        return math.inf
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    files = stat["inactive_file" if new else "total_inactive_file"]
    return max(0, int(limit) - int(held) + int(files))


def this_machine(device: str = "auto") -> Machine:
    """What training on ``device`` (auto, cuda, mps, cpu) would find here.

    Raises UserError for a device that is not here.
    """
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return processor()
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        name, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
        memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(count))
        if find_accelerator(name) is None:
            capability = torch.cuda.get_device_capability(0)
            has = {"bf16": capability >= (8, 0), "fp8": capability >= FP8_CAPABILITY}
            has["fp16"] = capability >= (7, 0) and not has["bf16"]
            return Machine(name, count, memory, peak_flops=None, **has)
        return replace(machine_of(name, count), memory_bytes=memory)
    if device in ("auto", "mps") and torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory()
        return Machine("mps", 1, memory, peak_flops=None, bf16=False)
    if device == "auto":
        return processor()
    raise no_device(device)


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether it is worth asking torch, which takes seconds; on Linux a driver leaves its nodes.

    A container that was given GPU 3 has nvidia3 alone; ``dxg`` is Windows' own, ``kfd`` AMD's.
    """
    if sys.platform != "linux":
        return True
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    drivers = ("nvidiactl", "nvidia[0-9]*", "dxg", "kfd")
    return any(any(devices.glob(name)) for name in drivers)


def no_device(name: str) -> UserError:
    """What to raise for a device that is not here: it says which names there are."""
    model = " (that is a GPU's model, not a device)" if find_accelerator(name) else ""
    return UserError(
        f"there is no device {name!r} here{model}; choose auto or cpu, or what the machine has of "
        "cuda, cuda:0 (one GPU, the first) and mps"
    )
