"""Our model for lm-evaluation-harness, under the name ``nanogpt2`` (optional extra ``harness``).

    import nanogpt2.evals.harness
    lm_eval.simple_evaluate("nanogpt2", model_args="checkpoint=runs/laptop", tasks=["arc_easy"])

Scores come from the same code as CORE's. Chapter: core.
"""

from __future__ import annotations

from typing import Any

import lm_eval.models  # noqa: F401 (else ours would be the only name that it knows)
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from nanogpt2.evals.core.fast.layout import Job
from nanogpt2.evals.core.fast.scoring import GPTScorer
from nanogpt2.evals.core.prompts import Option
from nanogpt2.evals.modes import evaluating
from nanogpt2.inference.engine import Engine, load_engine


@register_model("nanogpt2")
class HarnessModel(TemplateLM):
    """A checkpoint (``checkpoint=DIR``), or an ``engine`` that is there already.

    Every context begins with ``<|bos|>``, as every document in training did.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        engine: Engine | None = None,
        device: str | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
    ) -> None:
        super().__init__()
        if engine is None:
            if checkpoint is None:
                raise ValueError("name a checkpoint: model_args='checkpoint=DIR'")
            engine = load_engine(checkpoint, device or "auto")
        self.engine, self.scorer = engine, GPTScorer(engine.model)

    @property
    def eot_token_id(self) -> int:
        """Documents are told apart by ``<|bos|>`` alone."""
        return self.engine.tokenizer.bos_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Tokens of ``string``, ``<|bos|>`` first unless told otherwise."""
        return self.engine.tokenizer.encode(string, prepend_bos=add_special_tokens is not False)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """(log-probability in nats of the continuation, whether it is the greedy one) of each."""
        jobs = []
        for number, (_, context, continuation) in enumerate(requests):
            tokens = np.array([*context, *continuation], dtype=np.int32)
            option = Option(tokens, len(context)).cropped(self.scorer.limit())
            jobs.append(Job((0, number, 0), option))
        with evaluating(self.engine.model):
            scores = {key[1]: score for key, score in self.scorer.run(jobs)}
        found = []
        for number, job in enumerate(jobs):
            count = len(job.option.tokens) - job.option.start
            score = scores[number]
            found.append((-score.loss * count if count else 0.0, score.matches or not count))
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability in nats of whole texts, each in windows of the training length.

        Every token is predicted once; each window begins with the last token of the one before.
        """
        length = self.engine.model.config.sequence_len
        windows, owners = [], []
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for start in range(0, len(tokens) - 1, length):
                windows.append((("", ""), tokens[start : start + 1], tokens[start + 1 :][:length]))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy (or sampled) continuations, cut at the first of the stop texts."""
        texts = []
        for request in requests:
            prompt, settings = request.args
            temperature = settings.get("temperature", 0.0) if settings.get("do_sample") else 0.0
            text = self.engine.complete(
                prompt,
                max_new_tokens=settings.get("max_gen_toks", 256),
                temperature=temperature,
            )[0]
            stops = settings.get("until") or []
            for stop in [stops] if isinstance(stops, str) else stops:
                text = text.split(stop)[0] if stop else text
            texts.append(text)
        return texts
