"""The training loop: data in, checkpoints and metrics out. Chapter: the loop.

``train(settings)`` runs in every rank: alone, or under torchrun (see ``distributed.py``).
"""

from __future__ import annotations

from nanogpt2.training.settings import OnMessage, OnStep, StepReport, TrainResult, TrainSettings

__all__ = ["StepReport", "TrainResult", "TrainSettings", "train"]


def train(
    settings: TrainSettings,
    on_step: OnStep | None = None,
    on_message: OnMessage | None = None,
) -> TrainResult:
    """Train from prepared data, continuing an unfinished run where there is one.

    SIGTERM and SIGINT end the step, save, and return with ``stopped_by`` set (hand
    ``result.exit_code`` to the shell). Raises UserError for what a user can mend: data, tokenizer,
    a checkpoint of another model, a loss that is NaN or explodes, a full disk.
    """
    raise NotImplementedError  # lands with the data loader
