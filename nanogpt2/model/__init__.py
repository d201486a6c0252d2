"""The transformer, one technique a file; ``gpt.py`` puts them together."""

from nanogpt2.model.gpt import GPT

__all__ = ["GPT"]
