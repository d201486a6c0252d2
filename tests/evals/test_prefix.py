"""One pass over shared beginnings gives what every sequence gives on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nanogpt2.config import GPTConfig
from nanogpt2.evals.core.fast.layout import Job, plan_batches, share_prefixes
from nanogpt2.evals.core.fast.prefix import SharedPrefix
from nanogpt2.evals.core.prompts import Option
from nanogpt2.model.gpt import GPT
from tests.evals.conftest import small_config, trained_looking

CONFIGS = {
    "run1": small_config(),
    "grouped queries": small_config(n_kv_head=1),
    "smear and backout": small_config(smear=True, smear_channels=8, backout=True, qk_scale=1.2),
    "GPT-2": GPTConfig.gpt2(
        sequence_len=200, vocab_size=300, n_layer=2, n_head=2, n_kv_head=2, n_embd=32
    ),
}


def family_of_jobs() -> list[Job]:
    """Three prefixes longer than the windows, each with endings of several lengths (one empty)."""
    draws = np.random.default_rng(5)
    jobs = []
    for item, length in enumerate((40, 55, 90)):
        prefix = draws.integers(0, 300, length)
        for option, more in enumerate((1, 2, 9, 40)):
            tokens = np.concatenate((prefix, draws.integers(0, 300, more))).astype(np.int32)
            jobs.append(Job((0, item, option), Option(tokens, length)))
    return jobs


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_logits_are_those_of_separate_passes(name: str) -> None:
    model = trained_looking(GPT(CONFIGS[name])).eval()
    jobs = family_of_jobs()
    rows = share_prefixes(jobs)
    assert len(rows) == 3 and all(row.endings for row in rows)
    (batch,) = plan_batches(rows, 10_000)
    cache = SharedPrefix(batch, torch.device("cpu"))
    logits = model(torch.from_numpy(batch.tokens), cache=cache).flatten(0, 1)
    for key, begin, end in batch.spans:
        job = jobs[key[1] * 4 + key[2]]
        alone = model(torch.from_numpy(job.inputs).long()[None])[0, job.option.start - 1 :]
        shared = logits[torch.from_numpy(batch.flat[begin:end])]
        torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_padding_changes_nothing() -> None:
    model = trained_looking(GPT(CONFIGS["smear and backout"])).eval()
    rows = share_prefixes(family_of_jobs())
    results = []
    for most in (600, 200):
        scores = {}
        for batch in plan_batches(rows, most):
            cache = SharedPrefix(batch, torch.device("cpu")) if batch.ending_width else None
            hidden = model.hidden(torch.from_numpy(batch.tokens), cache).flatten(0, 1)
            assert hidden.isfinite().all()
            for key, begin, end in batch.spans:
                scores[key] = hidden[torch.from_numpy(batch.flat[begin:end])]
        results.append(scores)
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-4)
