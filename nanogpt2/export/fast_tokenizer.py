"""Our tokenizer as a ``tokenizer.json`` of the ``tokenizers`` library, which gives the same tokens.

tiktoken joins the two neighbours whose union has the lowest rank, however the union came about;
``tokenizers`` joins pairs in the order of a list. So the list has every pair that makes a token,
by the token's rank. Chapter: tokens_and_rows.
"""

from __future__ import annotations

from typing import Any

from nanogpt2.data.tokenizer import BOS, Tokenizer


def byte_letters() -> dict[int, str]:
    """A printable character for each byte, as GPT-2 has them (Radford et al., 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def fast_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """The plain values of ``tokenizer.json``; ``<|bos|>`` comes first where special tokens do."""
    letters, ranks = byte_letters(), tokenizer.encoding._mergeable_ranks

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in sorted(ranks, key=lambda token: ranks[token]):
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        whole = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        merges += sorted(whole, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    special = sorted(tokenizer.encoding._special_tokens.items(), key=lambda item: item[1])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    pattern = {"Regex": tokenizer.encoding._pat_str}
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    first = {"SpecialToken": {"id": BOS, "type_id": 0}}
    a, b = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": name, "special": True, **flags} for name, index in special
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False},
                {**bytewise, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, a],
            "pair": [first, a, b],
            "special_tokens": {BOS: {"id": BOS, "ids": [tokenizer.bos_id], "tokens": [BOS]}},
        },
        "decoder": {**bytewise, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spelled(token): rank for token, rank in ranks.items()},
            "merges": [[spelled(left), spelled(right)] for left, right in merges],
        },
    }
