"""How many logits the loss holds at a time: for who computes it, and for who plans. No torch.

Chapter: where_the_time_goes.
"""

CHUNK = 2**24
"""logits in a chunk: 64 MB in fp32, and rows enough to feed the products"""
PLAIN_BYTES = 14
"""per logit, compiled: bf16 logits and gradient, and fp32 softcapped logits with room beside"""
FREE_SHARE = 0.4


def chunk_rows(vocab_size: int) -> int:
    """Tokens of a chunk."""
    return max(128, CHUNK // vocab_size)


def all_fit(logits: int, free: float) -> bool:
    """Whether a GPU with so many bytes free has ample room for the loss that holds them all."""
    return PLAIN_BYTES * logits < FREE_SHARE * free
