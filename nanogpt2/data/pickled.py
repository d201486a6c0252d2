"""nanochat's ``tokenizer.pkl``, read without trusting it. Chapter: tokens_and_rows.

A pickle is a program: it may ask for any function and call it. The one that nanochat writes asks
for one name only, ``tiktoken.core.Encoding``, and fills it with plain values; here that name gives
an empty box, and any other ends the reading.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError
from nanogpt2.files import LARGEST_TEXT

FILE = "tokenizer.pkl"


class Box:
    """What stands where the pickle wants an encoding; its values are kept as they are."""

    values: Any = None

    def __setstate__(self, values: Any) -> None:
        self.values = values


class Reader(pickle.Unpickler):
    """Plain values, and boxes."""

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name that the pickle asks for."""
        if (module, name) == ("tiktoken.core", "Encoding"):
            return Box
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not run")


def read_encoding(path: Path) -> tuple[dict[bytes, int], str, list[str]]:
    """Ranks, split pattern and special tokens; UserError where the file holds anything else."""
    way = (
        "bring the tokenizer in this program's form (Tokenizer(encoding).save(folder), where "
        "nanochat runs), and name it with --tokenizer"
    )
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise ValueError(f"{path.stat().st_size:,} bytes are too many")
        with open(path, "rb") as file:
            box = Reader(file).load()
        if not isinstance(box, Box) or not isinstance(box.values, dict):
            raise ValueError("it holds no encoding")
        ranks, special = box.values["mergeable_ranks"], box.values["special_tokens"]
        pattern = box.values["pat_str"]
        fits = (
            isinstance(pattern, str)
            and all(type(token) is bytes and type(rank) is int for token, rank in ranks.items())
            and all(bytes([byte]) in ranks for byte in range(256))
            and sorted(ranks.values()) == list(range(len(ranks)))
            and all(isinstance(name, str) for name in special)
            and sorted(special.values()) == list(range(len(ranks), len(ranks) + len(special)))
        )
        if not fits:
            raise ValueError("its tokens are not numbered one after the other")
        return dict(ranks), pattern, sorted(special, key=lambda name: special[name])
    except OSError:
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path} is no tokenizer of nanochat's ({what}); {way}") from None
