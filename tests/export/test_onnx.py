"""The graph in onnxruntime: our logits, for any number of texts of any length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.export import onnx
from nanogpt2.export.trained import Trained
from tests.inference.conftest import build, small


@pytest.mark.parametrize("rung", ["run1", "run6", "gpt2"])
def test_logits_are_ours(rung: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the package onnxscript is missing")
    runtime = pytest.importorskip("onnxruntime", reason="the package onnxruntime is missing")
    heads = {} if rung == "gpt2" else {"n_kv_head": 2}
    model = build(small(rung, vocab_size=300, sequence_len=64, **heads), torch.float32)
    onnx.write(Trained(tmp_path, model, tokenizer), tmp_path)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for shape in ((1, 1), (1, 64), (3, 17), (2, 63)):
        idx = torch.randint(300, shape, generator=torch.Generator().manual_seed(sum(shape)))
        (found,) = session.run(["logits"], {"input_ids": idx.numpy()})
        with torch.inference_mode():
            wanted = model(idx)
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-3, atol=1e-3)


def test_a_missing_package_is_named(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    model = build(small("run1", vocab_size=300), torch.float32)
    with pytest.raises(UserError, match=r"pip install -e '\.\[onnx\]'"):
        onnx.write(Trained(tmp_path, model, tokenizer), tmp_path)
