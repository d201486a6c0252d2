"""The work of a speedrun's stages, each a call into the room that does it.

``nanogpt2.speedrun`` decides which are done, and by which ranks. Chapter: speedrun.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanogpt2.errors import UserError
from nanogpt2.files import made_here, read_json, require_replaceable, sha256_of, write_json
from nanogpt2.journal import Journal
from nanogpt2.memory import shards_needed
from nanogpt2.planning import Plan
from nanogpt2.reported import SHARD_CHARACTERS
from nanogpt2.reporting.console import Screen
from nanogpt2.run import EVAL_TOKENS, PROMPTS, Run

if TYPE_CHECKING:  # torch and the rooms that need it are imported by the stage that uses them
    from nanogpt2.data.source import Text
    from nanogpt2.data.tokenizer import Tokenizer
    from nanogpt2.inference.engine import Engine
    from nanogpt2.training.ranks import Ranks
    from nanogpt2.training.settings import StepReport

SAMPLING = {"max_new_tokens": 96, "temperature": 0.8, "seed": 0}
TOKENIZER_CHARACTERS = 2_000_000_000
TOKENIZER_SHARDS = math.ceil(TOKENIZER_CHARACTERS / SHARD_CHARACTERS)
"""of a data set that is downloaded: the vocabulary is learned from its first shards"""


class Work:
    """What each stage does; every method returns the files it made."""

    ranks: Ranks
    """set when they have joined, before any work"""
    loaded: Engine | None = None
    exit_code = 0
    """of the command, when a signal ended the training"""
    tokenizer_is_new = False
    """trained by this process, while shards came"""

    def __init__(self, run: Run, plan: Plan, screen: Screen) -> None:
        self.run, self.plan, self.screen, self.out = run, plan, screen, run.out
        self.data_dir, self.tokenizer_dir = run.data_dir, run.tokenizer_dir

    def check_folders(self, undone: Collection[str]) -> None:
        """UserError where a stage that is not done would replace what it did not make.

        Or where the run has learned something, with other text or another tokenizer than lies here.
        """
        data, known = self.run.data, self.learned()
        if data is None and "data" in undone:
            if self.run.recipe.data == "embedded" or self.run.sources:
                require_replaceable(self.data_dir)
            elif self.data_dir.exists() and not made_here(self.data_dir):
                raise UserError(
                    f"{self.data_dir} is there already, and no run of this program made it; "
                    "name another --out, or give it as --data"
                )
        if known is None:
            if "tokenizer" in undone and not self.run.tokenizer:
                require_replaceable(self.tokenizer_dir, *([data] if data else []))
            return
        self.check_tokenizer(known)
        if self.run.sources:
            self.check_sources(known)
        if data is not None:
            self.check_text(data)

    def check_attention(self) -> None:
        """UserError, before anything is fetched, where the backend asked for cannot serve here."""
        from nanogpt2.kernels.backends import announcement
        from nanogpt2.training.setup import PRODUCTS

        asked, dtype = self.run.loop.attention_backend, PRODUCTS[self.plan.precision]
        announcement(self.run.dial.model, self.ranks.device, dtype, asked)

    def learned(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint; None while there is none."""
        from nanogpt2.training.checkpoint import learned

        return learned(self.out)

    def check_tokenizer(self, known: dict[str, Any]) -> None:
        """UserError unless the run's tokenizer is the one with which its model has learned."""
        wanted = known.get("tokenizer")
        try:
            if wanted is None or self.tokenizer().digest == wanted:
                return
            what = "is not the tokenizer"
        except UserError:
            what = "does not hold the tokenizer"
        raise UserError(
            f"{self.tokenizer_dir} {what} with which the model in {self.out} was trained; bring "
            "that one back, or name another --out"
        )

    def check_text(self, folder: Path) -> Text:
        """The run's text as it lies in ``folder``; UserError where the run learned from another."""
        from nanogpt2.data.source import Text, continued

        now, known = Text.of(folder), self.learned()
        if known is None or "text" not in known:
            return now
        return continued(Text.from_record(known["text"]), now, self.run.more_data)

    def check_sources(self, known: dict[str, Any]) -> None:
        """UserError where --data names other text, or other weights, than the run learned from.

        The sources that its ``config.json`` names are not read again: the shards that were made of
        them are what it learns from.
        """
        from nanogpt2.data.mixture import follow, wanted
        from nanogpt2.data.shards import MIXTURE
        from nanogpt2.data.source import Text

        if self.run.more_data:
            raise UserError(
                "--more-data takes folders of shards that are trained on as they lie; go on from "
                f"the model with the new text in another run (--init-from {self.out})"
            )
        path = self.out / "config.json"
        if path.is_file() and read_json(path).get("sources") == list(self.run.sources):
            return
        if (self.data_dir / MIXTURE).is_file() and "text" in known:
            same = follow(self.data_dir, self.run.sources, Text.from_record(known["text"]))
        else:
            same = wanted(self.run.sources) == self.prepared()
        if not same:
            raise UserError(
                f"the run in {self.out} learned from other text, or by other weights, than --data "
                "names; go on with its own (--resume, without --data), or name another --out"
            )

    def held_out(self) -> list[Path]:
        """The shards that the run is measured on."""
        return self.check_text(self.data_dir).paths(self.data_dir, "held_out")

    def shards_needed(self) -> int:
        """How many training shards of its downloaded data set the run reads."""
        return shards_needed(self.run.recipe.data, self.run.dial.tokens)

    def bytes_to_come(self) -> int:
        """What the run will write to the disk, beyond what is there."""
        folders = (self.out / "checkpoints", *([] if self.run.data else [self.data_dir]))
        here = sum(f.stat().st_size for d in folders for f in d.rglob("*") if f.is_file())
        return max(0, self.plan.disk_bytes - here)

    def wanted_data(self) -> Any:
        """What the data stage should have made: of one's own folder, the files as they are.

        CORE's tasks count only while they are still to be fetched: no model learns from them.
        """
        if self.run.sources:
            wanted: list[Any] = [self.prepared()]
        elif self.run.data is None:
            wanted = [self.run.recipe.data, self.shards_needed()]
        else:
            from nanogpt2.data.shards import find_shards

            shards = find_shards(self.run.data)
            wanted = sorted([shards.name(file), file.stat().st_size] for file in shards.files)
        return [*wanted, "and CORE's tasks"] if self.lacks_tasks() else wanted

    def prepared(self) -> str:
        """A digest of the sources of the run's text; once it has learned, as they were then."""
        from nanogpt2.data.mixture import wanted
        from nanogpt2.data.prepare import SUMMARY
        from nanogpt2.data.shards import MIXTURE

        if self.learned() is not None:
            for name in (SUMMARY, MIXTURE):
                if (self.data_dir / name).is_file():
                    return str(read_json(self.data_dir / name).get("identity"))
        return wanted(self.run.sources)

    def lacks_tasks(self) -> bool:
        """Whether CORE will be measured with tasks that are not on the disk."""
        from nanogpt2.data.bundle import kept_bundle

        return self.run.wants_core and not (self.run.core_bundle or kept_bundle())

    def find_tasks(self) -> Path:
        """The folder of CORE's tasks, fetched if need be."""
        from nanogpt2.data.bundle import find_bundle

        return find_bundle(self.run.core_bundle, "give --core-bundle DIR")

    def get_data(self) -> list[Path]:
        """Write the embedded corpus, download the recipe's shards, or check one's own.

        CORE's tasks come first: a run that cannot be measured ends before it has cost anything.
        """
        from nanogpt2.data.corpus import missing_packages, write_embedded_corpus
        from nanogpt2.data.shards import find_shards, open_shard
        from nanogpt2.evals.core.bundle import load_tasks, published_scores

        if self.run.wants_core:
            if self.lacks_tasks():
                self.screen.say("  fetching CORE's tasks (162 MB)")
            load_tasks(self.find_tasks())
            published_scores(self.find_tasks())
        if self.run.data is not None:
            shards = find_shards(self.data_dir)
            for shard in shards.files:
                open_shard(shard)
            if self.learned() is None:  # afterwards it is what the run began with
                self.screen.say(f"  {shards.describe()}")
            return []
        if self.run.sources:
            from nanogpt2.data.mixture import lay_out

            with self.screen.progress("bytes") as advance:
                lay_out(self.run.sources, self.data_dir, advance, self.screen.say, self.check_text)
            self.check_text(self.data_dir)
        elif self.run.recipe.data == "embedded":
            if missing := missing_packages():
                self.screen.say(f"  {missing}")
            write_embedded_corpus(self.data_dir, check=self.check_text)
        else:
            self.download()
            self.check_text(self.data_dir)
        return [self.data_dir]

    def download(self) -> None:
        """The recipe's shards; the tokenizer is trained as soon as those are here that it needs."""
        from nanogpt2.data.download import coming, download_dataset

        name, shards = self.run.recipe.data, self.shards_needed()

        def fetch(number: int) -> None:
            with self.screen.progress("bytes") as advance:
                download_dataset(name, self.data_dir, number, advance)

        if shards > TOKENIZER_SHARDS and self.learned() is None and not self.run.tokenizer:
            fetch(TOKENIZER_SHARDS)
            self.screen.say("  training the tokenizer, while the other shards come")
            with coming(name, shards, self.data_dir):
                self.train_tokenizer()
            self.tokenizer_is_new = True
        fetch(shards)

    def train_tokenizer(self) -> list[Path]:
        """Learn the recipe's vocabulary from the training shards, once and for all of the run."""
        if self.run.tokenizer:
            self.tokenizer()  # which says what is wrong with it
            return []
        if self.tokenizer_is_new or self.learned() is not None:
            return [self.tokenizer_dir]  # checked when the run went on
        from nanogpt2.data.shards import find_shards, open_shard
        from nanogpt2.data.tokenizer import Tokenizer, text_sample

        files = find_shards(self.data_dir).train
        if self.run.data is None:
            files = files[:TOKENIZER_SHARDS]
        shards = [open_shard(path).metadata for path in files]
        groups = [shard.row_group(i) for shard in shards for i in range(shard.num_row_groups)]
        total = min(sum(group.total_byte_size for group in groups), TOKENIZER_CHARACTERS)

        def told(texts: Iterator[str]) -> Iterator[str]:
            read = 0
            for text in texts:
                read += len(text)
                advance(min(read, total), total)
                yield text
            advance(total, total, "merging")

        with self.screen.progress("characters") as advance:
            texts = told(text_sample(files, TOKENIZER_CHARACTERS))
            Tokenizer.train(texts, self.run.recipe.model.vocab_size).save(self.tokenizer_dir)
        return [self.tokenizer_dir]

    def to_train(self) -> Run:
        """The run as the training loop is given it: its tasks fetched, its rows such as fit."""
        rows = self.plan.device_batch_size
        return replace(
            self.run,
            recipe=replace(self.run.recipe, device_batch_size=rows),
            core_bundle=self.find_tasks() if self.run.loop.core_every else None,
        )

    def train_model(self) -> list[Path] | None:
        """Train, from the newest checkpoint if there is one; None when a signal ended it."""
        from nanogpt2.evals.held_out import require_held_out
        from nanogpt2.logs import open_log
        from nanogpt2.training.trainer import train

        screen = self.screen
        if self.ranks.is_main:
            require_held_out(self.held_out(), self.tokenizer(), self.run.dial.model.sequence_len)
            self.note_identity()
        log = open_log(
            self.run.log if self.ranks.is_main else "none", self.out, self.run.identity()
        )
        with screen.progress() as advance:

            def on_step(report: StepReport) -> None:
                advance(report.step, report.steps, progress_text(report))
                log.log(report.step, report.to_log())

            result = train(self.to_train(), on_step, screen.say, self.ranks)
        log.close()
        if result.stopped_by is None:
            return [self.out / "training.json", self.out / str(result.checkpoint)]
        screen.say(
            f"  stopped by {result.stopped_by} after step {result.step:,} of {result.steps:,}; "
            f"saved in {self.out / str(result.checkpoint)}, and {result.onward} continues"
        )
        self.exit_code = result.exit_code
        return None

    def note_identity(self) -> None:
        """Complete the run's identity in ``config.json``: its text, tokenizer and start."""
        from nanogpt2.training.onward import identity_of

        config = read_json(self.out / "config.json")
        text = self.check_text(self.data_dir).to_record()
        whole = {"text": text, "tokenizer": self.tokenizer().digest}
        config["identity"] |= identity_of(self.run) | whole
        write_json(self.out / "config.json", config)

    def trained(self) -> str:
        """A digest of the training's outcome, the input of what is made of it."""
        path = self.out / "training.json"
        return sha256_of(path) if path.is_file() else ""

    def evaluate(self) -> list[Path]:
        """Bits per byte of the held-out documents, by the trained model."""
        from nanogpt2.evals.bits_per_byte import bits_per_byte
        from nanogpt2.evals.held_out import held_out_batches

        ranks, tokenizer = self.ranks, self.tokenizer()
        model = self.engine(ranks).model
        rows, length = self.plan.device_batch_size, model.config.sequence_len
        share = held_out_batches(
            self.held_out(), tokenizer, EVAL_TOKENS, rows, length, ranks.rank, ranks.world_size
        )
        batches = list(share)
        value = bits_per_byte(model, batches, tokenizer.token_bytes)
        (tokens,) = ranks.sum([float(sum(targets.numel() for _, targets in batches))])
        self.screen.say(f"  {value:.4f} bits per byte over {tokens:,.0f} tokens")
        return self.write("evaluation.json", {"val_bpb": value, "tokens": int(tokens)})

    def evaluate_core(self) -> list[Path]:
        """CORE of the trained model; all ranks ask a share of the examples."""
        from nanogpt2.evals.core import evaluate_core
        from nanogpt2.evals.core.bundle import published_scores
        from nanogpt2.reporting.run import weights_of

        bundle = self.find_tasks()
        published = published_scores(bundle)  # a damaged table is told before the hour, not after
        with self.screen.progress("examples") as advance:
            result = evaluate_core(
                self.engine(self.ranks).model,
                self.tokenizer(),
                bundle,
                self.run.core_max_per_task,
                progress=advance,
            )
        self.screen.say(f"  {result.label}: {result.core:.4f}")
        scores = {**result.to_dict(published), "weights": weights_of(self.out)}
        return self.write("core.json", scores)

    def engine(self, ranks: Ranks | None = None) -> Engine:
        """The trained model on this rank's device, loaded once; ``ranks`` where all load it."""
        from nanogpt2.inference.engine import load_engine

        if self.loaded is None:
            self.loaded = load_engine(self.out, str(self.ranks.device), ranks=ranks)
        return self.loaded

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        from nanogpt2.data.tokenizer import Tokenizer

        return Tokenizer.load(self.tokenizer_dir)

    def write(self, name: str, value: Any) -> list[Path]:
        """A JSON file of the run, by rank 0."""
        if self.ranks.is_main:
            write_json(self.out / name, value)
        return [self.out / name]

    def sample(self) -> list[Path]:
        """Continue a few prompts."""
        texts = self.engine().complete(PROMPTS, **SAMPLING)
        samples = [{"prompt": p, "text": t} for p, t in zip(PROMPTS, texts, strict=True)]
        return self.write("samples.json", samples)

    def report_inputs(self) -> Any:
        """Whatever the report shows."""
        names = ("metrics.jsonl", "length.json", "evaluation.json", "core.json", "samples.json")
        paths = [self.out / name for name in names]
        files = [sha256_of(path) if path.is_file() else "" for path in paths]
        stages = {k: v for k, v in Journal(self.out).seconds().items() if k != "report"}
        return [metadata.version("nanogpt2"), self.run.identity(), self.trained(), files, stages]

    def report(self) -> list[Path]:
        """Write report.html and report.md."""
        from nanogpt2.reporting.report import write_report

        return write_report(self.out)


def progress_text(report: StepReport) -> str:
    """What a step tells, in few words."""
    text = f"loss {report.loss:.3f}  {report.tokens_per_second:,.0f} tokens/s"
    return text if report.val_bpb is None else f"{text}  validation {report.val_bpb:.4f}"
