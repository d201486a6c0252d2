"""Text in, text out: whole characters, batches, the command and its complaints."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanogpt2.errors import UserError, run_command
from nanogpt2.inference import engine as room
from nanogpt2.inference.engine import Engine
from nanogpt2.inference.generation import generate
from tests.inference.conftest import build, small


class Bytes:
    """A tokenizer of single bytes."""

    def __init__(self):
        ranks = {bytes([i]): i for i in range(256)}
        self.encoding = tiktoken.Encoding(
            name="bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={"<|bos|>": 256}
        )
        self.bos_id, self.vocab_size = 256, 257

    def encode(self, text, prepend_bos=False):
        return [self.bos_id] * prepend_bos + self.encoding.encode_ordinary(text)


@pytest.fixture(scope="module")
def engine():
    return Engine(build(small("run6", vocab_size=260), torch.float32), Bytes())


def says(monkeypatch, tokens):
    monkeypatch.setattr(room, "generate_steps", lambda *a, **k: ([token] for token in tokens))


def test_stream_gives_whole_characters(engine, monkeypatch):
    text = "naïve 日本 🙂!"
    says(monkeypatch, text.encode())
    assert list(engine.stream("x")) == list(text)  # four bytes of 🙂 are one piece


@settings(max_examples=50)
@given(data=st.binary(max_size=12))
def test_stream_of_any_bytes_is_their_text(engine, data):
    with pytest.MonkeyPatch.context() as patch:
        says(patch, data)
        assert "".join(engine.stream("x")) == data.decode("utf-8", "replace")


def test_a_token_without_text_shows_as_a_replacement_character(engine, monkeypatch):
    says(monkeypatch, [65, 259, 66])  # 259 is a row of the model, no token of the tokenizer
    assert "".join(engine.stream("x")) == "A\ufffdB"


def test_complete_and_stream_agree(engine):
    options = {"max_new_tokens": 20, "temperature": 0.9, "top_k": 40, "seed": 5}
    texts = engine.complete(["To be", "or not to be, that is"], **options)
    assert "".join(engine.stream("To be", **options)) == texts[0]
    assert engine.complete("To be", **options) == texts[:1]
    assert len(set(texts)) == 2


def test_text_begins_with_bos_and_ends_at_bos(engine, monkeypatch):
    seen = {}

    def spy(model, prompts, **options):
        seen.update(options, prompts=prompts)
        return generate(model, prompts, **options)

    monkeypatch.setattr(room, "generate", spy)
    engine.complete(["ab"], max_new_tokens=3)
    assert seen["prompts"] == [[256, 97, 98]]
    assert tuple(seen["stop_tokens"]) == (256,)


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(UserError, match="prompt is empty"):
        engine.complete(["a", ""])


def test_a_tokenizer_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="tokenizer has 257 tokens and the model 200"):
        Engine(build(small("run1", vocab_size=200)), Bytes())


@pytest.fixture
def command(engine, monkeypatch, capsys):
    """Run the command on the tiny model; (status, stdout, stderr)."""

    def run(*argv, stdin=""):
        monkeypatch.setattr(room, "load_engine", lambda *a: engine)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as stopped:
            run_command(lambda: room.main(["--checkpoint", "somewhere", *argv]))
        return stopped.value.code, *capsys.readouterr()

    return run


def test_command_continues_a_prompt(engine, command):
    status, out, _ = command("--prompt", "To be", "--max-new-tokens", "9", "--seed", "4")
    expected = engine.complete("To be", max_new_tokens=9, temperature=0.8, seed=4)
    assert (status, out) == (0, f"To be{expected[0]}\n")


def test_command_continues_several_prompts_together(engine, command):
    status, out, _ = command("--prompt=a", "--prompt=bc", "--samples=2", "--max-new-tokens=5")
    prompts = ["a", "a", "bc", "bc"]
    texts = engine.complete(prompts, max_new_tokens=5, temperature=0.8)
    assert status == 0
    assert out == "".join(
        f"{prompt}{text}\n{'-' * 40}\n" for prompt, text in zip(prompts, texts, strict=True)
    )


def test_command_continues_each_line_typed(engine, command):
    status, out, err = command(
        "--max-new-tokens=5", "--top-k=9", stdin="a\n\n" + "b" * 9000 + "\nc"
    )
    first = engine.complete("a", max_new_tokens=5, temperature=0.8, top_k=9)[0]
    third = engine.complete("c", max_new_tokens=5, temperature=0.8, top_k=9, seed=2)[0]
    assert status == 0
    assert out.startswith(f"a{first}\n") and out.endswith(f"c{third}\n")
    assert err.startswith("error: prompt 0 has 9001 tokens")  # said, and the next line is served


def test_the_last_seed_is_followed_by_the_first(command):
    status, out, err = command(f"--seed={2**63 - 1}", "--max-new-tokens=2", stdin="a\na\n")
    assert (status, err) == (0, "") and len(out.splitlines()) >= 2


def test_without_standard_input_a_prompt_must_be_given(monkeypatch, engine, capsys):
    monkeypatch.setattr(room, "load_engine", lambda *a: engine)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: room.main(["--checkpoint", "somewhere"]))
    assert stopped.value.code == 2 and "give --prompt TEXT" in capsys.readouterr().err


@pytest.mark.parametrize("tokens", ["0", "-3"])
def test_no_new_tokens_are_refused_before_the_model_is_read(monkeypatch, capsys, tokens):
    monkeypatch.setattr(room, "load_engine", lambda *a: pytest.fail("it was read"))
    for prompt in ([], ["--prompt", "a"]):
        with pytest.raises(SystemExit) as stopped:
            run_command(
                lambda more=prompt: room.main(
                    ["--checkpoint", "somewhere", "--max-new-tokens", tokens, *more]
                )
            )
        assert stopped.value.code == 2
        expected = f"error: max_new_tokens is {tokens}; it must be at least 1\n"
        assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "a", "--temperature", "-1"], "temperature is -1.0"),
        (["--prompt", "a", "--top-k", "0"], "top_k is 0"),
        (["--prompt", "a", "--top-p", "2"], "top_p is 2.0"),
        (["--prompt", "a", "--samples", "0"], "samples is 0"),
        (["--prompt", "a", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--prompt", "a" * 9000], "has 9001 tokens and the model has 8192 positions"),
    ],
)
def test_command_explains_bad_input(command, argv, message):
    status, _, err = command(*argv)
    assert status == 2
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with a checkpoint (in nanochat's form) and a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("run")
    special = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
    encoding = tiktoken.Encoding(
        "bytes",
        pat_str=r"[\s\S]",
        mergeable_ranks={bytes([i]): i for i in range(256)},
        special_tokens=special,
    )
    Tokenizer(encoding).save(folder / "tokenizer")
    model = build(small("run1", vocab_size=265, value_gate_channels=32, n_head=2, n_kv_head=2))
    torch.save(model.state_dict(), folder / "model_000007.pt")
    meta = json.dumps({"model_config": model.config.to_dict()})
    (folder / "meta_000007.json").write_text(meta)
    return folder


def test_the_command_from_a_checkpoint_on_disk(run_folder):
    command = [sys.executable, "-m", "nanogpt2.inference.engine", "--checkpoint", str(run_folder)]
    settings = ["--temperature=0", "--max-new-tokens=12", "--dtype=float32", "--device=cpu"]
    ran = subprocess.run([*command, *settings, "--prompt=Ab"], capture_output=True, check=True)
    engine = room.load_engine(run_folder, "cpu", "float32")
    expected = engine.complete("Ab", temperature=0, max_new_tokens=12)[0]
    assert ran.stdout.decode() == f"Ab{expected}\n" and ran.stderr == b""


def test_weights_in_the_precision_of_products_give_the_same_numbers(run_folder):
    cast = room.load_engine(run_folder, "cpu", "bfloat16").model
    assert cast.lm_head.weight.dtype == torch.bfloat16
    master = room.load_engine(run_folder, "cpu", "float32").model
    master.compute_dtype = torch.bfloat16
    idx = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(cast(idx), master(idx))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--checkpoint", "nowhere"], "nowhere does not exist"),
        (["--checkpoint", __file__], "is a file; give the folder of a run"),
        (["--checkpoint", "RUN", "--device", "H100"], "that is a GPU's model, not a device"),
        (
            ["--checkpoint", "RUN", "--device", "abacus"],
            "no device 'abacus' here; choose auto",
        ),
    ],
)
def test_a_checkpoint_or_device_that_is_not_there(run_folder, capsys, argv, message):
    argv = [str(run_folder) if word == "RUN" else word for word in argv]
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: room.main([*argv, "--prompt", "a"]))
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and message in err and err.count("\n") == 1
