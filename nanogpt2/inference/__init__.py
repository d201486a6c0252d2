"""Sampling from a trained model, with a cache and the same numbers as without.

``nanogpt2.inference.engine`` holds the ``Engine`` and the command. Chapter: speedrun.
"""

from nanogpt2.inference.generation import generate, generate_steps
from nanogpt2.inference.kv_cache import KVCache, cache_bytes
from nanogpt2.inference.sampling import Sampling

__all__ = ["KVCache", "Sampling", "cache_bytes", "generate", "generate_steps"]
