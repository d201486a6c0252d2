"""The training loop, its checkpoints, its measurements, its ranks. Chapter: loop."""
