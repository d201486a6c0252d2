"""Which precision a device is good at: asked at run time, never decided at import."""

from __future__ import annotations

import torch

from nanogpt2.machines import processor_has_bf16


def good_at_fp16(device: torch.device | str) -> bool:
    """Whether fp16 products are what ``device`` is made for: NVIDIA's Volta and Turing (V100, T4).

    Their tensor cores know no bf16, and give eight times the rate of fp32. Older cards have no
    tensor cores, newer ones have bf16, and an Apple GPU is no faster in fp16 than in fp32.
    """
    device = torch.device(device)
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return (7, 0) <= torch.cuda.get_device_capability(device) < (8, 0)


def good_at_bf16(device: torch.device | str) -> bool:
    """Whether bf16 products are native on ``device``, and so faster than fp32 ones.

    CUDA from compute capability 8.0 (Ampere) on; processors with AVX512-BF16 or AMX; not MPS.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and processor_has_bf16()
