"""Text from a model: a model with its tokenizer, streams, and a command.

Tokens are made by ``nanogpt2.inference.generation``. Chapter: speedrun.

    python -m nanogpt2.inference.engine --checkpoint runs/laptop --prompt "The state of the Union"
"""

from __future__ import annotations

import argparse
import codecs
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nanogpt2.errors import UserError, readable, run_command
from nanogpt2.files import named_path
from nanogpt2.inference.generation import generate, generate_steps
from nanogpt2.inference.sampling import SEEDS, Sampling
from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.model.gpt import GPT

if TYPE_CHECKING:
    from nanogpt2.data.tokenizer import Tokenizer
    from nanogpt2.training.ranks import Ranks

EMPTY = "the prompt is empty; give at least one character to continue from"


class Engine:
    """A model with its tokenizer: text in, text out.

    ``settings`` of the methods are those of ``generate_steps``: max_new_tokens, temperature, top_k,
    top_p, seed, stop_tokens (by default ``<|bos|>``, which begins another document).
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model "
                f"{model.config.vocab_size}; use the tokenizer that the model was trained with"
            )
        self.model, self.tokenizer = model, tokenizer

    def stream(self, prompt: str, **settings: Any) -> Iterator[str]:
        """The continuation of ``prompt``, in pieces as they come, each of whole characters."""
        settings.setdefault("stop_tokens", (self.tokenizer.bos_id,))
        steps = generate_steps(self.model, [self._encode(prompt)], **settings)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for (token,) in steps:
            assert token is not None
            if piece := decoder.decode(self._bytes(token)):
                yield piece
        if rest := decoder.decode(b"", final=True):
            yield rest

    def complete(self, prompts: str | Sequence[str], **settings: Any) -> list[str]:
        """The continuations of all ``prompts``, computed together."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        settings.setdefault("stop_tokens", (self.tokenizer.bos_id,))
        texts = generate(self.model, [self._encode(prompt) for prompt in prompts], **settings)
        return [b"".join(map(self._bytes, text)).decode("utf-8", "replace") for text in texts]

    def _encode(self, prompt: str) -> list[int]:
        if not prompt:
            raise UserError(EMPTY)
        return self.tokenizer.encode(prompt, prepend_bos=True)

    def _bytes(self, token: int) -> bytes:
        try:
            return self.tokenizer.encoding.decode_single_token_bytes(token)
        except KeyError:  # the model may have more rows than the tokenizer has tokens
            return "\ufffd".encode()


def load_engine(
    checkpoint: Path | str,
    device: str = "auto",
    dtype: str = "auto",
    tokenizer: Path | str | None = None,
    ranks: Ranks | None = None,
) -> Engine:
    """The newest complete model of a run or checkpoint folder, ready to write on ``device``.

    Args:
        checkpoint: a run's folder or a checkpoint's.
        device: auto takes CUDA, then MPS, then the processor.
        dtype: of products, float32 or bfloat16; auto takes bfloat16 where products in it are
            native.
        tokenizer: folder of the model's tokenizer, for a checkpoint that lies alone.
        ranks: those that all load it now, of which one verifies it.
    """
    # The command stands on rooms above which the engine itself does not reach.
    from nanogpt2.training.loading import find_tokenizer, load_model
    from nanogpt2.training.ranks import ALONE, choose_device

    chosen = choose_device(device)
    model = load_model(checkpoint, chosen, ranks or ALONE)
    own = find_tokenizer(checkpoint, tokenizer)
    if dtype == "auto":
        dtype = "bfloat16" if good_at_bf16(chosen) else "float32"
    model.compute_dtype = getattr(torch, dtype)
    for parameter in model.parameters():
        if parameter.ndim == 2:  # cast at every product anyhow: the same numbers, read faster
            parameter.data = parameter.data.to(model.compute_dtype)
    return Engine(model.eval(), own)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.inference.engine",
        description="Continue prompts with a trained model; without --prompt, ask for them.",
    )
    add = parser.add_argument
    add("--checkpoint", type=named_path, required=True, help="folder of a run or of a checkpoint")
    add("--tokenizer", type=named_path, help="folder of its tokenizer (default: the run's own)")
    add("--prompt", action="append", help="text to continue; may be given several times")
    add("--samples", type=int, default=1, help="continuations of each prompt (default 1)")
    add("--max-new-tokens", type=int, default=128, help="(default 128)")
    add("--temperature", type=float, default=0.8, help="0: always the likeliest (default 0.8)")
    add("--top-k", type=int, help="draw among the k likeliest tokens")
    add("--top-p", type=float, help="draw among the likeliest tokens that hold this probability")
    add("--seed", type=int, default=0, help="(default 0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """The command: completions of --prompt on standard output, or a conversation without one."""
    options = _arguments(argv)
    settings = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "seed")}
    Sampling(**settings)  # checked before the model is read, so that a slip costs no waiting
    for name in ("samples", "max_new_tokens"):
        if getattr(options, name) < 1:
            raise UserError(f"{name} is {getattr(options, name)}; it must be at least 1")
    if "" in (options.prompt or ()):
        raise UserError(EMPTY)
    settings["max_new_tokens"] = options.max_new_tokens
    engine = load_engine(options.checkpoint, options.device, options.dtype, options.tokenizer)
    if not options.prompt:
        return _interact(engine, settings)
    prompts = [readable(text) for text in options.prompt for _ in range(options.samples)]
    if len(prompts) == 1:
        return _show(engine, prompts[0], settings)
    for prompt, text in zip(prompts, engine.complete(prompts, **settings), strict=True):
        print(f"{prompt}{text}\n{'-' * 40}")


def _show(engine: Engine, prompt: str, settings: dict[str, Any]) -> None:
    print(prompt, end="", flush=True)
    for piece in engine.stream(prompt, **settings):
        print(piece, end="", flush=True)
    print()


def _interact(engine: Engine, settings: dict[str, Any]) -> None:
    """Continue each line that is typed, until end of file; Ctrl-C cuts a continuation short."""
    if sys.stdin is None:
        raise UserError("there is no standard input to read prompts from; give --prompt TEXT")
    if sys.stdin.isatty():
        print("A line is continued by the model. Ctrl-C stops it, Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            prompt = readable(input("> " if sys.stdin.isatty() else ""))
        except EOFError:
            return
        if not prompt.strip():
            continue
        try:
            _show(engine, prompt, settings)
        except KeyboardInterrupt:
            print()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        # the next line draws anew, and the whole conversation still follows from the seed
        settings["seed"] = (settings["seed"] + 1) % SEEDS


if __name__ == "__main__":
    run_command(main)
