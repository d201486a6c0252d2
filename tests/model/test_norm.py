import torch

from nanogpt2.config import GPTConfig
from nanogpt2.model.norm import Norm, rms_norm


def test_rms_norm_against_the_formula_in_float64():
    x = 3 * torch.randn(5, 64)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True)).sqrt()
    torch.testing.assert_close(rms_norm(x).double(), exact, rtol=1e-5, atol=1e-6)


def test_rms_norm_in_bf16_is_rounded_once():
    x = torch.randn(50, 256).bfloat16()
    exact = x.double() / (x.double().square().mean(-1, keepdim=True)).sqrt()
    error = ((rms_norm(x).double() - exact).abs() / exact.abs().clamp_min(1e-3)).max()
    # half a unit of bf16 is 2^-9 = 0.2%; eps (2^-7 for bf16 input on some builds) adds up to 0.4%
    assert error < 0.012


def test_scale_does_not_matter():
    x = torch.randn(3, 32)
    torch.testing.assert_close(rms_norm(1000 * x), rms_norm(x), rtol=1e-4, atol=1e-5)


def test_learnable_norms_are_torchs_own():
    x = torch.randn(2, 3, 32)
    for kind, own in (("rms", torch.nn.RMSNorm(32)), ("layer", torch.nn.LayerNorm(32))):
        ours = Norm(GPTConfig(n_embd=32, n_head=1, n_kv_head=1, norm=kind, norm_learnable=True))
        with torch.no_grad():
            for p, q in zip(ours.parameters(), own.parameters(), strict=True):
                q.copy_(p.normal_())
        torch.testing.assert_close(ours(x), own(x))
