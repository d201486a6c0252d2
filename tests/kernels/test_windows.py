import torch

from nanogpt2 import GPT, GPTConfig
from nanogpt2.kernels.windows import receptive_field, sees, window_mask


def test_mask_by_its_definition():
    mask = window_mask(5, 5, 2)
    for q in range(5):
        for k in range(5):
            assert mask[q, k] == (0 <= q - k <= 2)
    assert torch.equal(window_mask(2, 5, 2), mask[3:])


def test_positions_may_be_anything_that_broadcasts():
    """One row of a cache holds five tokens and another three; both ask for their last two."""
    query = torch.tensor([[3, 4], [1, 2]])[..., None]
    seen = sees(query, torch.arange(5), 1)
    assert torch.equal(seen[0], window_mask(2, 5, 1))
    assert torch.equal(seen[1, :, :3], window_mask(2, 3, 1)) and not seen[1, :, 3:].any()


def test_receptive_field_is_what_a_gradient_sees():
    """The last layer is full, so look at the layers below it: windows add up."""
    config = GPTConfig(
        sequence_len=16, vocab_size=64, n_layer=3, n_head=1, n_kv_head=1, n_embd=32,
        window_pattern="S", short_window_divisor=8, value_gate_channels=8,
    )  # fmt: skip
    model = GPT(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(0, 0.5)
    model.transformer["h"][-1].attn.window = config.short_window
    seen = []
    wte = model.transformer["wte"]
    wte.register_forward_hook(lambda m, i, out: (out.retain_grad(), seen.append(out))[1])
    model(torch.arange(16)[None])[0, -1].square().sum().backward()
    reached = seen[0].grad[0].abs().sum(-1) > 0
    assert int(reached.sum()) == 1 + receptive_field([(2, 0)] * 3)
    assert not reached[: 16 - 7].any()
