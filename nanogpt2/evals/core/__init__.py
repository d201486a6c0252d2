"""CORE: 22 tasks asked in context, the score that says "as good as GPT-2".

Tasks and protocol: DCLM (Li et al., 2024, arXiv 2406.11794). ``plain`` is the
whole protocol on one page. The evaluator: ``bundle`` reads the data, ``tasks`` draws examples,
``prompts`` asks, ``fast`` encodes, packs and scores what was asked, ``evaluate`` leads, and
``results``, ``statistics`` and ``report`` say what came out.
Chapter: core.
"""

from nanogpt2.evals.core.evaluate import CoreEvaluator, evaluate_core
from nanogpt2.evals.core.results import CoreResult, Outcome, TaskResult

__all__ = ["CoreEvaluator", "CoreResult", "Outcome", "TaskResult", "evaluate_core"]
