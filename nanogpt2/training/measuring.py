"""What is measured of a model while it learns, when, and what came of it so far. Chapter: loop."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from nanogpt2.data.source import Text
from nanogpt2.run import Loop, Run
from nanogpt2.training.fit import due
from nanogpt2.training.metrics import scores
from nanogpt2.training.ranks import Ranks
from nanogpt2.training.settings import Evaluation
from nanogpt2.training.setup import Learner
from nanogpt2.training.start import Start
from nanogpt2.training.stopping import Stopper


class Measuring:
    """Validation, CORE and samples of one run, as one rank sees them.

    ``evaluation`` knows how each is made. Every rank asks for validation and CORE, after the same
    steps; ``steps`` is always the length of the run as far as it is known.
    """

    def __init__(
        self,
        asked: Run,
        evaluation: Evaluation,
        learner: Learner,
        loop: Loop,
        ranks: Ranks,
        stopper: Stopper,
    ) -> None:
        self.asked, self.evaluation, self.learner = asked, evaluation, learner
        self.loop, self.ranks, self.stopper = loop, ranks, stopper
        self.stop_key = ranks.fresh_key()
        self.scores: dict[int, float] = {}
        """validation bits per byte by step"""
        self.cores: dict[int, float] = {}

    def require(self, text: Text) -> None:
        """UserError where that text could not be measured when it is due."""
        if self.loop.eval_every != -1:
            self.evaluation.require(text.paths(self.asked.data_dir, "held_out"))

    def take_up(self, start: Start) -> None:
        """Go on with what earlier parts of the run have found, by their ``metrics.jsonl``."""
        self.start, path = start, self.asked.out / "metrics.jsonl"
        self.scores.update(self.ranks.share(lambda: scores(path, start.step)))
        self.cores.update(self.ranks.share(lambda: scores(path, start.step, "core")))

    def follow(self, loop: Loop) -> None:
        """Measure as often, and so much text, as ``loop`` says from now on."""
        self.loop = loop
        self.evaluation.resize(loop.eval_tokens or 1)

    @property
    def best(self) -> float | None:
        """The lowest validation bits per byte so far, in all parts of the run."""
        known = [*self.scores.values(), self.start.best]
        return min((score for score in known if score is not None), default=None)

    def lacks(self, step: int, steps: int) -> bool:
        """Whether validation or CORE is due after ``step`` and was not measured yet."""
        return self._lacks_score(step, steps) or self._lacks_core(step, steps)

    def measure(self, step: int, steps: int, found: dict[str, float]) -> None:
        """Add to ``found`` what is lacking; StopRequested, on all ranks, when one is told to stop.

        Of several ranks none may leave the others waiting: they ask each other in between.
        """
        alone = self.ranks.world_size == 1
        try:
            with self.stopper.interruptible() if alone else nullcontext():
                if self._lacks_score(step, steps):
                    held_out = self.start.text.paths(self.asked.data_dir, "held_out")
                    score = self.evaluation.bits_per_byte(
                        self.learner.forward, held_out, self._told_to_stop
                    )
                    self.scores[step] = found["val_bpb"] = score
                if self._lacks_core(step, steps):
                    core = self.evaluation.core(self.learner.model, self._told_to_stop)
                    self.cores[step] = found["core"] = core
        finally:
            self.learner.model.train()

    def sample(self, step: int, steps: int) -> dict[str, Any]:
        """What the model writes, where it is due: rank 0 asks, and the others' next step waits."""
        every = self.loop.sample_every
        if not (self.ranks.is_main and every and due(step, steps, every)):
            return {}
        return {"samples": self.evaluation.write(self.learner.model)}

    def _lacks_score(self, step: int, steps: int) -> bool:
        return due(step, steps, self.loop.eval_every or 0) and step not in self.scores

    def _lacks_core(self, step: int, steps: int) -> bool:
        every = self.loop.core_every
        return every > 0 and due(step, steps, every) and step not in self.cores

    def _told_to_stop(self) -> bool:
        return self.ranks.told(self.stop_key, self.stopper.requested is not None)
