import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.optim.adamw import adamw_scalars, adamw_update


@settings(max_examples=25)
@given(
    lr=st.floats(1e-4, 0.5),
    beta1=st.floats(0.0, 0.98),
    beta2=st.floats(0.5, 0.999),
    decay=st.floats(0.0, 0.1),
)
def test_four_steps_equal_torchs_adamw_in_float64(lr, beta1, beta2, decay):
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(40, generator=generator)
    exact = torch.nn.Parameter(p.double())
    torchs = torch.optim.AdamW([exact], lr=lr, betas=(beta1, beta2), eps=1e-10, weight_decay=decay)
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    group = {"lr": lr, "betas": (beta1, beta2), "weight_decay": decay}
    for step in range(1, 5):
        g = torch.randn(40, generator=generator)
        adamw_update(p, g, m, v, *adamw_scalars(group, step), 1e-10)
        exact.grad = g.double()
        torchs.step()
    torch.testing.assert_close(p.double(), exact.data, rtol=1e-4, atol=1e-5)


def test_bf16_parameters_keep_fp32_moments():
    """A moment in bf16 would stand still at beta2 = 0.995: its change is below half a unit."""
    p, m, v = torch.zeros(1).bfloat16(), torch.zeros(1), torch.ones(1)
    group = {"lr": 0.0, "betas": (0.8, 0.995), "weight_decay": 0.0}
    for step in range(1, 301):
        adamw_update(p, torch.zeros(1).bfloat16(), m, v, *adamw_scalars(group, step), 1e-10)
    torch.testing.assert_close(v.item(), 0.995**300, rtol=1e-3, atol=0)
