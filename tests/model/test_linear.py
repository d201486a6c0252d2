"""The linear layer with fp32 masters: the plain product, and its gradients, in every precision."""

from __future__ import annotations

import pytest
import torch

from nanogpt2.model.linear import Linear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 24), (2, 3, 24)])
def test_product_and_gradients_against_float64(shape, dtype, bias):
    layer = Linear(24, 16, bias=bias)
    x = torch.randn(shape).to(dtype).requires_grad_()
    y = layer(x)
    up = torch.randn(y.shape).to(dtype)
    y.backward(up)
    x64, w64 = (t.detach().double().requires_grad_() for t in (x, layer.weight))
    b64 = 0.0 if layer.bias is None else layer.bias.double()
    y64 = x64 @ w64.T + b64
    y64.backward(up.double())
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for ours, exact in ((y, y64), (x.grad, x64.grad), (layer.weight.grad, w64.grad)):
        assert (ours.double() - exact).norm() < tolerance * exact.norm()
    assert (y.dtype, layer.weight.grad.dtype) == (dtype, torch.float32)


def test_no_copy_of_the_weight_is_kept_for_the_backward_pass():
    layer, kept = Linear(24, 16, bias=False), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(5, 24, dtype=torch.bfloat16, requires_grad=True))
    assert all(t.shape != layer.weight.shape or t is layer.weight for t in kept)


def test_compiled_is_the_same():
    torch._dynamo.reset()
    layer, x = Linear(24, 16, bias=False), torch.randn(5, 24, dtype=torch.bfloat16)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
