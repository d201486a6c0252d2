"""A run as it is asked for: by a command line, in Python, as JSON; one sentence a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nanogpt2.asked import SMALLEST_VOCABULARY, asked_for, parser
from nanogpt2.data.tokenizer import SMALLEST
from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.machines import machine_of, processor
from nanogpt2.recipes import RECIPES, get_recipe
from nanogpt2.run import Loop, Run, difference
from nanogpt2.speedrun import record
from nanogpt2.training.command import parser as trainer_parser


def plan(*arguments, out=None):
    return asked_for(parser().parse_args([*arguments, *(["--out", str(out)] if out else [])]))[0]


def ranks(*arguments):
    return asked_for(parser().parse_args(arguments))[1].machine.devices


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_to_what_the_dial_says(name):
    assert plan("--recipe", name).dial == dial(recipe=name)


def test_a_machine_without_a_gpu_gets_the_laptop(monkeypatch):
    monkeypatch.setattr("nanogpt2.machines.may_have_gpu", lambda: False)
    assert plan().recipe.name == plan("--recipe", "auto").recipe.name == "laptop"
    assert plan().out.as_posix() == "runs/laptop"


def test_a_processor_is_shared_by_ranks_unless_their_number_is_given(monkeypatch):
    monkeypatch.setattr("nanogpt2.machines.may_have_gpu", lambda: False)
    monkeypatch.setattr("nanogpt2.asked.cores", lambda: 4)
    monkeypatch.setattr("nanogpt2.asked.sys.platform", "linux")
    assert ranks() == 4
    assert ranks("--cpu-ranks", "1") == 1
    assert ranks("--set", "batch_tokens=512") == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks() == 2


def test_one_process_for_each_gpu_unless_the_processor_is_asked_for(monkeypatch):
    monkeypatch.setattr("nanogpt2.machines.may_have_gpu", lambda: True)
    monkeypatch.setattr("nanogpt2.asked.cores", lambda: 1)
    node = {"auto": machine_of("H100", 8), "cpu": processor()}
    monkeypatch.setattr("nanogpt2.asked.this_machine", node.__getitem__)
    assert ranks("--recipe", "run1") == 8
    assert ranks("--recipe", "run1", "--device", "cpu") == 1
    rehearsal = plan("--cpu-ranks", "3")
    assert ranks("--cpu-ranks", "3") == 3
    assert (rehearsal.device, rehearsal.recipe.name) == ("cpu", "laptop")


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr("nanogpt2.asked.this_machine", lambda kind: machine_of("H100"))


def test_what_was_not_asked_for_ends_within_two_hours_on_one_gpu(one_gpu):
    run, made = asked_for(parser().parse_args([]))
    assert run.recipe.name == "run6" and made.seconds <= 7200 and run.out == Path("runs/run6")
    assert "would take about 13 h 12 min and $39.60" in made.notes[0]
    quarter = asked_for(parser().parse_args(["--minutes", "15"]))[1]
    assert quarter.seconds <= 900 and quarter.depth < made.depth


def test_a_longer_run_is_named_and_not_started_unless_it_is_asked_for(one_gpu):
    with pytest.raises(UserError, match=r"run6 at depth 24 would take about 13 h 12 min .*--yes"):
        plan("--depth", "24")
    assert plan("--depth", "24", "--yes").dial.depth == plan("--yes").dial.depth == 24
    assert plan("--recipe", "run6").dial.depth == 24
    assert plan("--depth", "24", "--minutes", "60").dial.depth == 24, "the clock ends it"
    shown = asked_for(parser().parse_args(["--depth", "24", "--dry-run"]))[1]
    assert "ask for it by name" in shown.notes[0]


def test_rows_of_a_pass_are_as_asked_for(one_gpu):
    def rows(*more):
        return asked_for(parser().parse_args(["--recipe", "run1", "--depth", "8", *more]))[1]

    assert rows().device_batch_size == 32
    assert rows("--device-batch-size", "16").device_batch_size == 16
    assert rows("--device-batch-size", "8").device_batch_size == 8


def test_own_text_needs_no_room_for_the_recipes(one_gpu, tmp_path):
    there, own = (
        asked_for(parser().parse_args(["--recipe", "run1", *more]))[1]
        for more in ([], ["--data", str(tmp_path)])
    )
    assert there.disk_bytes - own.disk_bytes == there.data_bytes > 0 == own.data_bytes


def test_set_reaches_recipe_model_groups_and_loop():
    changed = Run(get_recipe("run1"), Path()).assign(
        {
            "ratio": "8.5",
            "rope_base": "1e5",
            "muon.lr": "0.03",
            "wte.betas": "0.9,0.99",
            "steps": "40",
            "eval_every": "7",
            "max_seconds": "60",
            "compile": "off",
        }
    )
    recipe, loop = changed.recipe, changed.loop
    assert (recipe.ratio, recipe.iterations) == (8.5, 40)
    assert recipe.model.rope_base == 1e5
    assert recipe.muon.lr == 0.03 and recipe.wte.betas == (0.9, 0.99)
    assert loop == Loop(eval_every=7, max_seconds=60.0, compile="off")


def test_depth_and_steps_reach_the_dial():
    resolved = plan("--recipe", "laptop", "--depth", "2", "--set", "steps=30").dial
    assert (resolved.depth, resolved.iterations) == (2, 30)
    assert resolved.total_flops == resolved.flops_per_token * 30 * resolved.batch_tokens


def test_about_ten_measurements_and_checkpoints_unless_said_otherwise():
    loop = plan("--recipe", "laptop", "--set", "steps=1000").loop
    assert (loop.eval_every, loop.checkpoint_every) == (100, 100)
    loop = plan("--recipe", "laptop", "--set", "eval_every=-1", "--set", "steps=5").loop
    assert (loop.eval_every, loop.checkpoint_every) == (-1, 1)


def test_the_laptops_recipe_takes_ten_minutes_at_most():
    loop = plan("--device", "cpu", "--seed", "3").loop
    assert (loop.minutes, loop.lengthen, loop.eval_every) == (10, False, None)
    assert (
        plan("--device", "cpu").identity() == plan("--device", "cpu", "--minutes=none").identity()
    )
    for more in (["--set", "ratio=3"], ["--steps", "90"], ["--minutes", "none"]):
        assert plan("--device", "cpu", *more).loop.minutes is None
    filled = plan("--device", "cpu", "--minutes", "3")
    assert (filled.loop.minutes, filled.loop.lengthen) == (3, True)
    assert filled.identity()["minutes"] == 3


SHORT = ["--eval-every", "7", "--steps=40", "--compile", "off", "--precision", "fp32"]
LONG = ["eval_every=7", "steps=40", "compile=off", "precision=fp32"]


def test_an_option_and_a_setting_of_the_same_name_are_the_same():
    by_option, by_name = plan(*SHORT), plan(*(f"--set={pair}" for pair in LONG))
    assert by_option == by_name and by_name.precision == by_name.recipe.precision == "fp32"
    assert plan(*SHORT, "--set", "loop.eval_every=8").loop.eval_every == 8, "--set counts more"
    assert plan("--precision", "auto").precision == "auto"
    assert plan("--set", "data=climbmix").recipe.data == "climbmix"


def test_both_commands_spell_their_options_alike():
    def options(command):
        return {o: a for a in command._actions for o in a.option_strings}

    speedrun, trainer = options(parser()), options(trainer_parser())
    assert set(trainer) - set(speedrun) == {"--resume-from"}
    assert set(speedrun) - set(trainer) == {
        "--resume", "--dry-run", "--cpu-ranks", "--max-restarts", "--core-max-per-task",
        "--yes",
    }  # fmt: skip
    for name in {*speedrun} & {*trainer} - {"--data"}:  # one takes shards alone, the other any text
        assert (speedrun[name].dest, speedrun[name].type) == (
            trainer[name].dest,
            trainer[name].type,
        )


def test_a_run_is_kept_as_json():
    run = Run(get_recipe("run5"), "out", data="data", loop=Loop(max_seconds=3), core_bundle="b")
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    assert run.dial == dial(recipe="run5") and replace(run, seed=1).dial is run.dial
    assert (run.data_dir, run.tokenizer_dir) == (Path("data"), Path("out/tokenizer"))
    with pytest.raises(
        UserError, match=r"record of the run does not fit \(there is no setting 'loop\.evry'\)"
    ):
        Run.from_dict(run.to_dict() | {"loop": {"evry": 3}})


CHANGES = {
    "muon.lr=0.03": "recipe.muon.lr is 0.02 there and 0.03 here",
    "precision=fp32": "recipe.precision is bf16 there and fp32 here",
    "steps=3": "recipe.iterations is None there and 3 here",
    "model.value_embeddings=off": "recipe.model.value_embeddings is True there and False here",
    "device_batch_size=3": None,
    "eval_every=3": None,
}


@pytest.mark.parametrize("pair", CHANGES)
def test_two_runs_are_the_same_when_they_learn_the_same(pair):
    run = Run(get_recipe("run1"), Path("a"))
    other = replace(run, out=Path("b"), device="cpu").assign(dict([pair.split("=")]))
    assert difference(run.identity(), other.identity()) == CHANGES[pair]
    own = replace(run, data=Path("here")).identity()
    assert own == replace(run, data=Path("there")).identity() != run.identity()


MISTAKES = {
    "unknown recipe": (["--recipe", "run9"], "unknown recipe 'run9'; choose one of laptop, run1"),
    "no room for all bytes": (["--set", "vocab_size=3"], "need 265"),
    "depth 0": (["--recipe", "run1", "--depth", "0"], "depth is 0; it must be at least 1"),
    "depth without end": (["--set", "depth=1000000000"], "depth is 1000000000; it must be less"),
    "an average that never moves": (["--set", "wte.betas=0.8,1"], "betas is 1.0; it must be less"),
    "a step back": (["--set", "muon.lr=-1"], "muon.lr is -1; it must be at least 0"),
    "gates that read nothing": (["--set", "value_gate_channels=0"], "value_gate_channels is 0"),
    "nothing to measure": (["--set", "eval_tokens=0"], "eval_tokens is 0; it must be at least 1"),
    "a head of nothing": (["--set", "head_dim=0"], "head_dim is 0; it must be at least 1"),
    "an odd head": (["--set", "head_dim=33"], "choose an even head size"),
    "too wide a gate": (["--set", "value_gate_channels=999"], "exceeds n_embd"),
    "no number at all": (["--set", "ratio=nan"], "ratio is nan"),
    "a slip of the pen": (["--set", "ropebase=3"], "did you mean rope_base?"),
    "a slip in the loop": (["--set", "eval_evry=3"], "did you mean eval_every?"),
    "a slip in a group": (["--set", "muon.lrr=3"], "muon has lr, momentum"),
    "nothing like it": (["--set", "zzzzzz=3"], "there is no setting 'zzzzzz'; see"),
    "no value": (["--set", "ratio"], "write --set name=value"),
    "no name": (["--set", "=3"], "write --set name=value"),
    "not a number": (["--set", "ratio=many"], "ratio is 'many'; it must be a number"),
    "not a choice": (["--set", "compile=maybe"], "choose one of auto, on, off"),
    "vocabulary of none": (["--set", "vocab_size=0"], "vocab_size is 0"),
    "a width by hand": (["--set", "n_embd=100"], "n_embd follows from the depth"),
    "no such data": (["--data", "/no/such/folder"], "--data /no/such/folder: there is no such"),
    "no such bundle": (["--core-bundle", "/no/such"], "--core-bundle /no/such: there is no such"),
    "no ranks": (["--cpu-ranks", "0"], "--cpu-ranks is 0; it must be at least 1"),
    "ranks without end": (["--cpu-ranks", "1000000"], "a rehearsal has at most 256"),
    "a GPU by its model": (["--device", "H100"], "that is a GPU's model, not a device"),
    "not of the recipe": (["--set", "seed=3"], "seed is an option of its own"),
    "no seed": (["--seed", str(2**63)], "seed is 9223372036854775808; it must be less than"),
    "an option's value": (["--keep-last", "0"], "keep_last is 0; it must be at least 1"),
    "no time": (["--minutes", "0"], "minutes is 0; it must be positive"),
    "too short to be timed": (["--minutes", "3", "--steps", "30"], "of a run of 30 steps at"),
    "unknown log": (["--log", "paper"], "choose one of wandb, trackio, tensorboard, none"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_each_mistake_is_one_sentence_with_cause_and_cure(case):
    arguments, expected = MISTAKES[case]
    with pytest.raises(UserError) as caught:
        plan("--device", "cpu", *arguments)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["--out", "--data", "--core-bundle"])
def test_an_empty_name_is_not_this_folder(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        plan(option, "")
    assert stopped.value.code == 2
    assert f"argument {option}: the name is empty" in capsys.readouterr().err


def test_a_file_is_no_folder_for_a_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; name a folder"):
        plan("--recipe", "laptop", out=tmp_path / "file")


def test_resume_takes_everything_from_the_record(tmp_path):
    arguments = ["--recipe", "laptop", "--depth", "2", "--seed", "5", "--data", str(tmp_path)]
    arguments += ["--core-bundle", str(tmp_path.resolve()), "--core-max-per-task", "5"]
    first = plan(*arguments, "--set", "precision=fp32", "--set", "eval_every=3", out=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(record(first, "command", {})))
    again = plan("--resume", out=tmp_path)
    assert again == replace(first, data=again.data)
    assert again.dial == first.dial
    assert again.sources == (str(tmp_path.resolve()),)
    assert again.identity() == first.identity()
    assert (again.wants_core, again.core_max_per_task) == (True, 5)
    for option, value in (("--depth", "3"), ("--tokenizer", "T"), ("--init-from", "R")):
        with pytest.raises(UserError, match=f"leave out {option}"):
            plan("--resume", option, value, out=tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, "holds no run to resume"), ("{", "not valid JSON"), ("{}", "not written by this")],
)
def test_resume_needs_a_record(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=expected):
        plan("--resume", out=tmp_path)


def test_a_dry_run_of_the_record_is_exact_and_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    command = [sys.executable, "-m", "nanogpt2.speedrun", "--recipe", "run1", "--dry-run"]
    ran = subprocess.run(
        [*command, "--device", "cpu", "--out", str(tmp_path / "run")],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    for figure in (
        "16,704",
        "8,757,706,752",
        "1,384,124,976",
        "43,307,841,312,289,456,128 (4.330784131228946e19)",
    ):
        assert figure in ran.stdout
    assert not (tmp_path / "run").exists()


def test_the_smallest_vocabulary_is_the_tokenizers():
    assert SMALLEST_VOCABULARY == SMALLEST


def test_a_run_refuses_rows_that_only_small_runs_are_made_of() -> None:
    with pytest.raises(UserError, match="packs its rows by best fit"):
        Run(get_recipe("laptop", packing="stream"), Path("out"))
