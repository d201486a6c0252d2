"""A folder for Hugging Face's ``transformers``: weights, code, tokenizer, and a card.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

Its code is ``modeling_nanogpt2.py`` with what that imports from this package put in its place, so
that it stands alone. Neither torch's pickles nor transformers are needed to write it. Chapter:
speedrun.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from nanogpt2.data.tokenizer import BOS
from nanogpt2.export.card import model_card
from nanogpt2.export.fast_tokenizer import fast_tokenizer
from nanogpt2.export.trained import Trained
from nanogpt2.files import write_json
from nanogpt2.model.gpt import GPT
from nanogpt2.training.checkpoint import write_tensors

CODE = "modeling_nanogpt2"


def write(trained: Trained, folder: Path) -> None:
    """Fill ``folder``; parameters as they were saved."""
    tensors = {name: t.contiguous() for name, t in trained.model.state_dict().items()}
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / f"{CODE}.py").write_text(standing_alone(CODE), encoding="utf-8")
    bos = trained.tokenizer.bos_id
    write_json(folder / "config.json", configuration(trained.model, bos))
    ends = {"bos_token_id": bos, "eos_token_id": bos, "pad_token_id": bos}
    sampling = {"do_sample": True, "temperature": 0.8, "top_k": 0, "max_new_tokens": 128}
    write_json(folder / "generation_config.json", ends | sampling)
    write_json(folder / "tokenizer.json", fast_tokenizer(trained.tokenizer))
    names = {"bos_token": BOS, "eos_token": BOS, "pad_token": BOS, "padding_side": "left"}
    as_ours = {"split_special_tokens": True, "clean_up_tokenization_spaces": False}
    length = {"model_max_length": trained.model.max_positions}
    named = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", named | names | as_ours | length)
    (folder / "README.md").write_text(model_card(trained), encoding="utf-8")


def configuration(model: GPT, bos: int) -> dict[str, Any]:
    """``config.json``: every switch, and what follows from them."""
    config = model.config
    return {
        "architectures": ["NanoGPT2ForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{CODE}.NanoGPT2Config",
            "AutoModelForCausalLM": f"{CODE}.NanoGPT2ForCausalLM",
        },
        "model_type": "nanogpt2",
        "dtype": "float32",
        **config.to_dict(),
        "head_dim": config.head_dim,
        "kv_dim": config.kv_dim,
        "mlp_dim": config.mlp_dim,
        "padded_vocab_size": config.padded_vocab_size,
        "window_sizes": [left for left, _ in config.window_sizes()],
        "value_layers": [i for i in range(config.n_layer) if config.has_value_embedding(i)],
        # by the names that transformers and its friends look for
        "num_hidden_layers": config.n_layer,
        "hidden_size": config.n_embd,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "max_position_embeddings": model.max_positions,
        "tie_word_embeddings": False,  # a shared table is one in the code, not two that are tied
        "bos_token_id": bos,
        "eos_token_id": bos,
        "pad_token_id": bos,
    }


def standing_alone(module: str) -> str:
    """The source of a module of this room, with the definitions that it imports of the package."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    ours = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("nanogpt2.")
    ]
    taken = []
    for node in ours:
        found = import_module(str(node.module))
        taken += [inspect.getsource(getattr(found, name.name)) for name in node.names]
        lines[node.lineno - 1 : node.end_lineno] = [""] * (
            int(node.end_lineno or 0) - node.lineno + 1
        )
    for node in reversed(ours):
        del lines[node.lineno - 1 : node.end_lineno]
    last = next(i for i, line in enumerate(lines) if line.startswith("Linear = "))
    before, after = "\n".join(lines[: last + 1]).strip(), "\n".join(lines[last + 1 :]).strip()
    return f"{before}\n\n\n" + "\n\n".join(taken).replace("GPTConfig", "Any") + f"\n\n{after}\n"
