"""The model card: what the record of a run says of its model. Chapter: speedrun."""

from __future__ import annotations

from collections.abc import Iterator

from nanogpt2.export.trained import Trained
from nanogpt2.model.gpt import GPT
from nanogpt2.outlook import duration
from nanogpt2.reporting.run import Run

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [nanogpt2]
---

# {title}

A base model, trained with nanogpt2: it continues text, and was not taught to answer.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
text = tokenizer("The state of the Union", return_tensors="pt")
print(tokenizer.decode(model.generate(**text)[0]))
```

Every text begins with `<|bos|>`, which the tokenizer adds. For lm-evaluation-harness that is
`--model_args pretrained=FOLDER,trust_remote_code=True,add_bos_token=True`.
"""


def model_card(trained: Trained) -> str:
    """Markdown: how to load it, what it is, what it learned from, and what it scored."""
    run = trained.run
    title = f"nanogpt2 {run.config.get('name', '')}".strip() if run else "A nanogpt2 model"
    lines = [HEAD.format(title=title), *table(trained), ""]
    if run is None:
        lines += ["No record of the run lay beside the checkpoint."]
    else:
        lines += ["It learned from:", "", *(f"- {line}" for line in run.config["credits"])]
        lines += ["", "The run, as it was started:", "", f"    {run.config['command']}"]
    return "\n".join([*lines, ""])


def table(trained: Trained) -> list[str]:
    """What the model is, how it was trained, and how well, in lines of Markdown."""
    rows = [*facts(trained.model), *(scores(trained.run, trained.step) if trained.run else ())]
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]


def facts(model: GPT) -> Iterator[tuple[str, str]]:
    """What it is."""
    config = model.config
    yield "parameters", f"{model.parameter_counts()['total']:,}"
    yield "layers, width, heads", f"{config.n_layer}, {config.n_embd}, {config.n_head}"
    yield "context", f"{config.sequence_len:,} tokens"
    yield "vocabulary", f"{config.vocab_size:,} tokens"


def scores(run: Run, step: int) -> Iterator[tuple[str, str]]:
    """How it was trained up to ``step``, and how well; of an early checkpoint what is known."""
    machine, end = run.config.get("machine", {}), run.training.get("step", step)
    tokens, seconds, bpb, core = (
        dict(run.points(name)).get(step) for name in ("tokens", "seconds", "val_bpb", "core")
    )
    if step == end:  # what the last stages measured, on more
        tokens = run.training.get("tokens", tokens)
        bpb = run.evaluation.get("val_bpb", bpb)
        core = run.core.get("core", core)
    if tokens:
        yield "trained on", f"{tokens:,.0f} tokens"
    if seconds:
        early = "" if step == end else f" of a run of {end:,}"
        yield "in", f"{duration(seconds)}, {step:,} steps{early}"
    if "processor" in machine:
        yield "by", f"{machine.get('gpus') or machine['processor']}, commit {machine.get('commit')}"
    if "precision" in run.training:
        yield "products in", str(run.training["precision"])
    if bpb is not None:
        yield "held-out text", f"{bpb:.4f} bits per byte"
    if core is not None:
        yield "CORE", f"{core:.4f}"
