"""Any causal language model of ``transformers``, with its tokenizer, for CORE.

Optional extra ``hf``. Chapter: core.
"""

from __future__ import annotations

from typing import Any

import torch

from nanogpt2.errors import UserError


class HuggingFaceTokenizer:
    """A ``transformers`` tokenizer by the names that CORE uses."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        bos = tokenizer.bos_token_id
        bos = tokenizer.eos_token_id if bos is None else bos
        if bos is None:
            raise UserError(
                "this tokenizer has neither a begin- nor an end-of-sequence token, and CORE's "
                "prompts begin with one; set its bos_token"
            )
        self.bos_id = int(bos)
        self.vocab_size = len(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text without special ones."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Tokens of every text; fast tokenizers use their own threads."""
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def load_huggingface(
    name: str, device: torch.device, dtype: torch.dtype = torch.float32, trust: bool = False
) -> tuple[Any, HuggingFaceTokenizer]:
    """Model in ``dtype`` and tokenizer of ``name``, a folder or a hub's name.

    ``trust``: run the code that comes with it.

    Raises UserError where transformers is missing, the hub cannot be reached or knows no such
    model.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise UserError(
            "scoring a Hugging Face model needs transformers; pip install 'nanogpt2[hf]'"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust)
        model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot load {name!r} ({first}); check the name and the network, or give a folder"
        ) from None
    model.to(device=device, dtype=dtype)  # type: ignore[call-arg]
    return model.eval(), HuggingFaceTokenizer(tokenizer)
