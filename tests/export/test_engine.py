"""The page's engine against the package: tokens, logits, inner values, changes, greedy text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2 import Engine, Tokenizer
from nanogpt2.config import GPTConfig
from nanogpt2.export.web_format import rounded
from nanogpt2.model.gpt import GPT
from nanogpt2.model.norm import rms_norm
from nanogpt2.recipes import get_recipe
from tests.export.conftest import TEXT, open_page, shaken

SIZES = dict(
    sequence_len=48, vocab_size=300, n_layer=4, n_head=4, n_kv_head=2, n_embd=64,
    value_gate_channels=8, smear_channels=6, short_window_multiple=1,
)  # fmt: skip
CONFIGS = {
    **{name: replace(get_recipe(name).model, **SIZES) for name in ("run1", "run6", "head")},
    "gpt2": GPTConfig.gpt2(
        **{k: v for k, v in SIZES.items() if k not in ("n_kv_head", "smear_channels")}
    ),
    "swiglu": replace(
        get_recipe("run1").model, **SIZES, activation="swiglu", norm_learnable=True, bias=True
    ),
    "layer": replace(get_recipe("run1").model, **SIZES, norm="layer", embedding_norm=False),
}
ROUNDING = 2e-4
"""logits are within this of the package's, in fp32; they are of the order of 10"""
PROMPTS = ["T", "The state of the Union", TEXT[:130], "東京 12345 \n\n they'll"]


def read(page: Any, ids: list[int], **options: Any) -> dict[str, Any]:
    """What the engine's ``read`` gives, its arrays as lists."""
    return page.evaluate(
        """async ([ids, options]) => {
            const plain = (_, x) => ArrayBuffer.isView(x) ? Array.from(x) : x; // NaN becomes null
            return JSON.parse(JSON.stringify(await engine.read(ids, options), plain));
        }""",
        [ids, options],
    )


def logits_of(model: GPT, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    found = [tokenizer.encode(text, prepend_bos=True)[: SIZES["sequence_len"]] for text in PROMPTS]
    assert len(found[2]) == SIZES["sequence_len"]  # beyond every short window
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_the_packages(
    name: str, opened: Callable[..., Any], tokenizer: Tokenizer
) -> None:
    model = shaken(GPT(CONFIGS[name]))
    page = opened(model)
    for ids in prompts(tokenizer):
        got = torch.tensor(read(page, ids, want=["logits"])["all"])
        expected = logits_of(model, ids)
        assert expected.std() > 0.5  # it says something
        torch.testing.assert_close(got, expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("bits", [8, 4])
def test_whole_numbers_give_the_rounded_models_logits(
    bits: int, opened: Callable[..., Any], tokenizer: Tokenizer
) -> None:
    model = shaken(GPT(CONFIGS["run6"]))
    ids = prompts(tokenizer)[2]
    got = torch.tensor(read(opened(model, bits), ids, want=["logits"])["all"])
    torch.testing.assert_close(got, logits_of(rounded(model, bits), ids), atol=ROUNDING, rtol=0)
    assert (got - logits_of(model, ids)).abs().max() > 10 * ROUNDING  # they are rounded


@pytest.mark.parametrize("name", ["run6", "gpt2"])
def test_a_hundred_greedy_tokens_are_the_packages(
    name: str, opened: Callable[..., Any], tokenizer: Tokenizer
) -> None:
    model = shaken(GPT(replace(CONFIGS[name], sequence_len=128)))
    prompt = "The state of the Union"
    expected = Engine(model, tokenizer).complete(
        prompt, max_new_tokens=100, temperature=0, stop_tokens=()
    )[0]
    ids = tokenizer.encode(prompt, prepend_bos=True)
    text = opened(model).evaluate(
        """async (ids) => {
            let text = "";
            engine.bos = -1; // go on whatever comes
            for await (const step of engine.write(ids, { most: 100 })) text += step.text;
            return text;
        }""",
        ids,
    )
    # a special token has a name there and no bytes here; a character cut at the end stays out
    for special in tokenizer.encoding.special_tokens_set:
        expected = expected.replace(special, "")
    assert len(expected) > 50 and expected.rstrip("\ufffd").startswith(text.rstrip("\ufffd"))
    assert len(expected) - len(text) <= 3


def pair_neighbours(model: GPT) -> None:
    """Neighbouring channels become halves, so that the package pairs them."""
    D = model.config.head_dim
    order = torch.arange(D).view(-1, 2).T.flatten()
    for block in model.blocks:
        for matrix in (block.attn.c_q, block.attn.c_k):
            weight = matrix.weight.view(-1, D, matrix.in_features)
            matrix.weight.copy_(weight[:, order].flatten(0, 1))


def move_positions(shift: float, stretch: float) -> Callable[[GPT], None]:
    def move(model: GPT) -> None:
        config = model.config
        half = torch.arange(0, config.head_dim, 2) / config.head_dim
        angle = torch.outer(torch.arange(500) * stretch + shift, config.rope_base**-half)
        model.cos, model.sin = angle.cos().bfloat16(), angle.sin().bfloat16()

    return move


def set_windows(*windows: int) -> Callable[[GPT], None]:
    def narrow(model: GPT) -> None:
        for block, window in zip(model.blocks, windows, strict=True):
            block.attn.window = window

    return narrow


def swap_rows(model: GPT) -> None:
    for table in model.value_embeds.values():
        table.weight[[70, 101]] = table.weight[[101, 70]]


def gates_times(factor: float) -> Callable[[GPT], None]:
    def scale(model: GPT) -> None:
        for layer in map(int, model.value_embeds):
            model.blocks[layer].attn.ve_gate.range *= factor

    return scale


def silence(model: GPT) -> None:
    D = model.config.head_dim
    model.blocks[1].attn.c_proj.weight[:, 2 * D : 3 * D] = 0


def skip(model: GPT) -> None:
    model.blocks[2].attn.c_proj.weight.zero_()
    model.blocks[2].mlp.c_proj.weight.zero_()


def times(name: str, factor: float) -> Callable[[GPT], Any]:
    return lambda model: model.get_parameter(name).mul_(factor)


def fill(name: str, value: float) -> Callable[[GPT], Any]:
    return lambda model: model.get_parameter(name).fill_(value)


RUN6 = CONFIGS["run6"]
Change = tuple[dict[str, Any], dict[str, Any], Callable[[GPT], Any]]
CHANGES: dict[str, Change] = {
    # what the page changes, what the package's configuration and its weights change
    "qk_norm": ({"qk_norm": False}, {"qk_norm": False}, id),
    "qk_scale": ({"qk_scale": 2.0}, {"qk_scale": 2.0}, id),
    "softcap": ({"logit_softcap": 3.0}, {"logit_softcap": 3.0}, id),
    "no softcap": ({"logit_softcap": 0}, {"logit_softcap": 0.0}, id),
    "base": ({"rope": {"base": 100}}, {"rope_base": 100.0}, id),
    "shift": ({"rope": {"shift": 7}}, {}, move_positions(7, 1)),
    "stretch": ({"rope": {"stretch": 2.5}}, {}, move_positions(0, 2.5)),
    "pairing": ({"rope": {"pairing": "neighbours"}}, {}, pair_neighbours),
    "windows": ({"windows": [3, 0, 9, 5]}, {}, set_windows(3, 0, 9, 5)),
    "x0": ({"x0_scale": 0}, {}, times("x0_lambdas", 0)),
    "resid": ({"resid_scale": 0.5}, {}, times("resid_lambdas", 0.5)),
    "smear": ({"smear_lambda": 2}, {}, fill("smear_lambda", 2)),
    "backout": ({"backout_lambda": 0.9}, {}, fill("backout_lambda", 0.9)),
    "gates": ({"value_gate": 3}, {}, gates_times(3)),
    "empty table": ({"empty_values": [3]}, {}, fill("value_embeds.3.weight", 0)),
    "swapped rows": ({"swap_values": [[70, 101]]}, {}, swap_rows),
    "a head off": ({"heads_off": [[1, 2]]}, {}, silence),
    "a layer off": ({"skip_layers": [2]}, {}, skip),
}


def test_a_change_does_what_the_same_change_of_the_package_does(
    opened: Callable[..., Any], tokenizer: Tokenizer
) -> None:
    model = shaken(GPT(RUN6))
    page = opened(model)
    ids = tokenizer.encode(TEXT[:130], prepend_bos=True)[:40]
    ids[5], ids[9] = 70, 101
    plain = logits_of(model, ids)
    for name, (change, switches, act) in CHANGES.items():
        other = shaken(GPT(replace(RUN6, **switches)))
        with torch.no_grad():
            act(other)
        expected = logits_of(other, ids)
        got = torch.tensor(read(page, ids, change=change, want=["logits"])["all"])
        torch.testing.assert_close(
            got, expected, atol=3 * ROUNDING, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )
        moved = (expected - plain).abs().max()
        # only differences of positions enter a score, up to bfloat16 angles
        assert (moved < 0.5) if name == "shift" else (moved > 0.05), name


def test_what_was_read_stays_read_and_what_differs_is_read_anew(
    opened: Callable[..., Any], tokenizer: Tokenizer
) -> None:
    """The cache: a text that grows, shrinks and changes gives the numbers of a fresh one."""
    model = shaken(GPT(RUN6))
    page, ids = opened(model), prompts(tokenizer)[2]
    for part in (ids[:5], ids[:6], ids, ids[:20] + [70] + ids[21:30], ids[:3]):
        got = torch.tensor(read(page, part, want=["logits"])["all"])
        torch.testing.assert_close(got, logits_of(model, part), atol=ROUNDING, rtol=0)


def keep(place: dict[int, torch.Tensor], layer: int, *call: Any) -> None:
    """A hook: what a module gave."""
    place[layer] = call[2][0]


def test_inner_values_are_the_packages(opened: Callable[..., Any], tokenizer: Tokenizer) -> None:
    model = shaken(GPT(RUN6))
    config, D = model.config, model.config.head_dim
    ids = prompts(tokenizer)[2]
    T, L, H = len(ids), config.n_layer, config.n_head
    streams: list[torch.Tensor] = []
    gates: dict[int, torch.Tensor] = {}
    queries: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *call: streams.append(call[2][0]))
        block.attn.c_q.register_forward_hook(partial(keep, queries, layer))
        if config.has_value_embedding(layer):
            block.attn.ve_gate.register_forward_hook(partial(keep, gates, layer))
    expected = logits_of(model, ids)
    names = ["stream", "attention", "scores", "norms", "gates"]
    got = read(opened(model), ids, want=names)
    for layer in range(L - 1):  # the last one is shown after backout
        stream = torch.tensor(got["stream"][layer + 1]).view(T, -1)
        torch.testing.assert_close(stream, streams[layer], atol=ROUNDING, rtol=1e-4)
    last = torch.tensor(got["stream"][L]).view(T, -1)
    torch.testing.assert_close(model.logits(rms_norm(last)), expected, atol=ROUNDING, rtol=0)
    for layer, (window, _) in enumerate(config.window_sizes()):
        weights = torch.tensor(got["attention"][layer]).view(H, T, T)
        torch.testing.assert_close(weights.sum(-1), torch.ones(H, T), atol=1e-5, rtol=0)
        place = torch.arange(T)
        hidden = (place[None] > place[:, None]) | (place[None] < place[:, None] - window)
        assert (weights[:, hidden] == 0).all() and (weights[:, ~hidden] > 0).all()
        scores = [-torch.inf if s is None else s for s in got["scores"][layer]]
        softmax = torch.tensor(scores).view(H, T, T).softmax(-1)
        torch.testing.assert_close(softmax, weights, atol=1e-5, rtol=0)
        # a rotation keeps the length of a query
        length = queries[layer].view(T, H, D).norm(dim=-1).flatten()
        torch.testing.assert_close(
            torch.tensor(got["norms"][layer]["q"]), length, atol=0.01, rtol=0.01
        )
        if layer in gates:
            gate = torch.tensor(got["gates"][layer]).view(T, -1)
            torch.testing.assert_close(gate, gates[layer], atol=1e-5, rtol=0)


def test_surprise_and_guesses_are_those_of_the_logits(
    opened: Callable[..., Any], tokenizer: Tokenizer
) -> None:
    model = shaken(GPT(RUN6))
    page, ids = opened(model), prompts(tokenizer)[1]
    logits = logits_of(model, ids)
    got = read(page, ids, top=3)
    bits = -logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0] / 0.6931472
    torch.testing.assert_close(torch.tensor(got["bits"][1:]), bits, atol=1e-3, rtol=0)
    assert got["bits"][0] is None
    best = logits.argsort(-1, descending=True)[:-1, :3].tolist()
    assert [[guess["token"] for guess in at] for at in got["guesses"][1:]] == best
    ranks = (logits[:-1] > logits[:-1].gather(1, torch.tensor(ids[1:])[:, None])).sum(-1)
    assert got["rank"][1:] == ranks.tolist()
    lens = page.evaluate("([ids, at]) => engine.lens(ids, at, { top: 3 })", [ids, len(ids) - 2])
    assert [g["token"] for g in lens[-1]["guesses"]] == best[-1]  # the last layer is the model
    assert len(lens) == model.config.n_layer + 1
    assert lens[-1]["next"]["p"] == pytest.approx(2 ** -bits[-1].item(), rel=1e-3)


def test_singular_values_are_torchs(opened: Callable[..., Any]) -> None:
    model = shaken(GPT(RUN6))
    page = opened(model)
    for name in ("transformer.h.0.mlp.c_fc.weight", "transformer.h.1.mlp.c_proj.weight"):
        got = page.evaluate("async (name) => [...await engine.singularValues(name)]", name)
        expected = torch.linalg.svdvals(model.get_parameter(name))
        torch.testing.assert_close(torch.tensor(got), expected, atol=1e-4, rtol=1e-4)
        matrix = page.evaluate("async (name) => [...(await engine.matrix(name)).data]", name)
        assert torch.equal(torch.tensor(matrix), model.get_parameter(name).flatten())


@pytest.fixture(scope="module")
def splitter(
    context: Any, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("splitter")
    page = open_page(context, tokenizer, folder, GPT(CONFIGS["run1"]))
    page.evaluate("globalThis.tokenizer = engine.tokenizer")
    yield page
    page.close()


PIECES = ["the ", "Union", "'S", "'LL", " 12345", "\n\r\n", "  ", "\t", "_", "!!", "<|bos|>"]
PIECES += ["\u00a0", "\ufeff", "\u0085", "\u200d", "\x1f", "\u017f", "'\u017f"]
PIECES += ["é", "e\u0301", "東京", "😀", "Ⅷ½", "अ"]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12))
@settings(max_examples=300)
def test_tokens_are_the_packages(splitter: Any, tokenizer: Tokenizer, parts: list[str]) -> None:
    text = "".join(parts).encode("utf-8", "replace").decode()
    ids = splitter.evaluate("(text) => tokenizer.encode(text)", text)
    assert ids == tokenizer.encode(text)
    assert splitter.evaluate("(ids) => tokenizer.decode(ids)", ids) == text


def test_every_character_falls_into_the_packages_class(splitter: Any, tokenizer: Tokenizer) -> None:
    """Letters, numbers and blanks, each between two letters; Unicode's unassigned are left out."""
    import unicodedata

    points = [i for i in range(0x3000) if unicodedata.category(chr(i)) not in ("Cn", "Cs")]
    texts = [f"a{chr(i)}b {chr(i)}{chr(i)}\n" for i in points]
    got = splitter.evaluate("(texts) => texts.map((text) => tokenizer.encode(text))", texts)
    assert got == [tokenizer.encode(text) for text in texts]
