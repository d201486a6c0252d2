"""The training loop, its checkpoints, its measurements, and its ranks."""
