"""Reports and pictures: whole, self-contained, true to the run's files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.outlook import duration
from nanogpt2.recipes import get_recipe
from nanogpt2.reporting.charts import Series, line_chart, room_for, short, smooth, thin
from nanogpt2.reporting.report import write_report
from nanogpt2.reporting.run import load_run, read_metrics
from scripts.picture import main as draw

numbers = st.floats(-1e6, 1e6, allow_nan=False)
VOID = {"meta", "link", "img", "br", "line", "rect", "circle", "polyline"}


@pytest.fixture
def run_folder(tmp_path):
    """The files that the stages of a run leave."""
    folder = tmp_path / "laptop"
    folder.mkdir()
    recipe = get_recipe("laptop")
    config = {
        "name": "laptop",
        "summary": "a small run",
        "command": "python -m nanogpt2.speedrun --out <here>",
        "recipe": recipe.to_dict(),
        "dial": asdict(dial(recipe=recipe)),
        "seed": 0,
        "machine": {"processor": "A & B <C>", "cores": 2},
        "credits": ["Speeches, public domain"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    records = [
        {"step": step, "loss": 9 / step, "lr": 1.0, "grad_norm": 0.5, "tokens_per_second": 8e3}
        | ({"val_bpb": 4 / step} if step % 10 == 0 else {})
        for step in range(1, 101)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "training.json").write_text(json.dumps({"seconds": 321.4, "mfu": None}))
    (folder / "evaluation.json").write_text(json.dumps({"val_bpb": 1.40625}))
    samples = [{"prompt": "My fellow", "text": " <b>citizens</b> & ~~~~ friends"}]
    (folder / "samples.json").write_text(json.dumps(samples))
    return folder


class Page(HTMLParser):
    """Checks that tags nest, and collects what a page would fetch and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.identities: list[str] = []
        self.described_charts = 0
        self.text = ""
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.fetched += [
            value
            for name, value in attributes
            if name in ("src", "href", "srcset") and not value.startswith("#")
        ]
        if tag == "svg":
            assert given["role"] == "img"
            self.described_charts += 1
            assert given.get("aria-label") or given["aria-labelledby"]
            self.labels = given.get("aria-labelledby", "").split()
        if "id" in given:
            self.identities.append(given["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_fetches_nothing_and_is_well_formed(run_folder):
    html, markdown = write_report(run_folder)
    text = html.read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == [] and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "<script" not in text
    assert len(page.identities) == len(set(page.identities))
    assert set(page.labels) <= set(page.identities)
    assert page.described_charts == 5
    assert 'lang="en"' in text and "prefers-color-scheme: dark" in text
    assert markdown.name == "report.md"


def test_both_reports_show_the_runs_figures_and_escape_its_text(run_folder):
    html, markdown = (path.read_text(encoding="utf-8") for path in write_report(run_folder))
    resolved = dial(recipe="laptop")
    for text in (Page(html).text, markdown.replace("\\<", "<")):
        for figure in (
            "1.4062",
            "5 min 21 s",
            f"{resolved.parameters['total']:,}",
            f"{resolved.total_flops:,}",
            "Speeches, public domain",
            "A & B <C>",
            "<b>citizens</b>",
            "muon.lr",
        ):
            assert figure in text
    assert "<b>citizens" not in html and "--out <here>" not in html
    assert "A & B \\<C>" in markdown
    # a fence inside a sample must not end the sample's own
    assert markdown.count("\n~~~~") % 2 == 0


def test_the_report_names_the_command_of_the_page_until_the_page_is_there(run_folder):
    html, markdown = (path.read_text(encoding="utf-8") for path in write_report(run_folder))
    command = "--checkpoint . --to web --out play"  # wherever the run lies
    assert command in Page(html).text and command in markdown
    (run_folder / "play").mkdir()
    (run_folder / "play" / "index.html").touch()
    html, markdown = (path.read_text(encoding="utf-8") for path in write_report(run_folder))
    assert Page(html).fetched == ["play/index.html"] and "(play/index.html)" in markdown
    assert command not in html


def test_core_is_compared_with_gpt2_only_when_there_and_whole(run_folder):
    html = write_report(run_folder)[0].read_text()
    assert "0.256525" not in html
    task = {"accuracy": 0.3, "centered": 0.0667, "correct": [1, 0]}
    core = {
        "label": "CORE",
        "core": 0.2585,
        "core_corrected": 0.2333,
        "standard_error": 0.0071,
        "sample": False,
        "protocol": "nanochat",
        "tasks": {"hellaswag": task} | {f"task {i}": task for i in range(21)},
    }
    (run_folder / "core.json").write_text(json.dumps(core))
    html, markdown = (path.read_text() for path in write_report(run_folder))
    for text in (html, markdown):
        for figure in ("0.2585", "0.0071", "0.0020 above", "0.256525", "0.2333", "0.2309"):
            assert figure in text
        assert "hellaswag" in text and "0.3000" in text
    assert 'aria-label="Centered accuracy of 22 tasks as bars' in html and "GPT-2 1.5B" not in html
    core["published"] = {"1.5B": {"hellaswag": 0.5}}
    core |= {"sample": True, "label": "CORE, sample of at most 2 examples a task"}
    (run_folder / "core.json").write_text(json.dumps(core))
    html, markdown = (path.read_text() for path in write_report(run_folder))
    Page(html)
    assert "GPT-2 1.5B" in html
    for text in (html, markdown):
        assert "sample of at most 2" in text and "0.256525" not in text


def test_a_run_that_has_only_begun_has_a_report(run_folder):
    for name in ("metrics.jsonl", "training.json", "evaluation.json", "samples.json"):
        (run_folder / name).unlink()
    html, markdown = (path.read_text() for path in write_report(run_folder))
    Page(html)
    assert "<svg" not in html and "Samples" not in html and "Samples" not in markdown


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_run(tmp_path)


def test_a_config_json_of_another_program_is_no_run(tmp_path):
    (tmp_path / "report.md").write_text("years of work")
    for content in ('{"model_type": "gpt2"}', "[]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match="is not that of a run"):
            write_report(tmp_path)
    assert (tmp_path / "report.md").read_text() == "years of work"


def test_torn_and_repeated_lines_of_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0, "val_bpb": 1.5},
        {"step": 2, "loss": 2.5},
        {"step": 3, "loss": 1.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '[1]\n{"step": 4, "lo')
    assert read_metrics(path) == [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.5, "val_bpb": 1.5},
        {"step": 3, "loss": 1.0},
    ]


def test_the_picture_stands_alone_and_the_readme_is_rewritten_in_place(run_folder, tmp_path):
    readme, image = tmp_path / "README.md", tmp_path / "pictures" / "run.svg"
    readme.write_text("# Top\n<!-- run: begin -->\nold\n<!-- run: end -->\nBottom\n")
    for _ in range(2):  # the second time changes nothing
        assert draw([str(run_folder), "-o", str(image), "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("# Top\n") and text.endswith("\nBottom\n") and "old" not in text
    assert "](pictures/run.svg)" in text and "1.4062" in text and "My fellow" in text
    assert re.search(r"!\[Validation over steps 10 to 100: starts at 0\.4 bits", text)
    root = ElementTree.parse(image).getroot()
    names = [child.tag.rpartition("}")[2] for child in root]
    assert names[:2] == ["title", "style"] and root.attrib["aria-label"].startswith("Validation")
    assert "var(--ng-c0)" in image.read_text()


@pytest.mark.parametrize("text", ["", "<!-- run: end --> <!-- run: begin -->"])
def test_a_readme_without_markers_is_left_alone(run_folder, tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(UserError, match="run: begin"):
        draw([str(run_folder), "-o", str(tmp_path / "x.svg"), "--readme", str(readme)])
    assert readme.read_text() == text


@settings(max_examples=30)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=60))
def test_every_chart_is_valid_xml_within_its_frame(points):
    points = sorted(points)
    svg = line_chart("a <b> & c", [Series("a", points)], "x", "y", "what it shows", "i")
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    space = "{http://www.w3.org/2000/svg}"
    frames = {clip.attrib["id"]: clip[0].attrib for clip in root.iter(f"{space}clipPath")}
    for box in frames.values():
        left, top, wide, high = (float(box[side]) for side in ("x", "y", "width", "height"))
        assert 0 <= left <= left + wide <= width and 0 <= top <= top + high <= height
    curves = [path for path in root.iter(f"{space}path") if "--ng-c0" in path.attrib["style"]]
    assert curves
    for curve in curves:  # a lone point is a marker, and lies in the middle
        assert len(points) == 1 or curve.attrib["clip-path"][5:-1] in frames


def test_a_loss_that_is_not_a_number_leaves_the_rest_of_the_curve():
    points = [(1, 3.0), (2, math.nan), (3, math.inf), (4, 2.0)]
    svg = line_chart("loss", [Series("loss", points)], "step", "nats", "falls", "i")
    assert "nan" not in svg and "inf" not in svg and "var(--ng-c0)" in svg
    assert line_chart("loss", [Series("loss", [(1, math.nan)])], "", "", "", "i") == ""


@pytest.mark.parametrize("name", ["$1", "a $50 and a $60 run", r"$\frac$", "_draft", r"a\$b", "$_"])
def test_a_curves_name_is_drawn_as_it_is(name):
    curves = [Series(each, [(1, 2.0), (2, 1.0)]) for each in (name, "other")]
    root = ElementTree.fromstring(line_chart("loss", curves, "step", "nats", "falls", "i"))
    drawn = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {name, "other"} <= {text.strip("\N{WORD JOINER}") for text in drawn}


@given(st.lists(numbers, min_size=1, max_size=3000), st.integers(2, 100))
def test_thinning_keeps_ends_and_extremes(values, limit):
    points = list(enumerate(values))
    kept = thin(points, limit)
    assert kept == sorted(set(kept)) and set(kept) <= set(points)
    assert {points[0], points[-1]} <= set(kept)
    assert min(values) == min(y for _, y in kept) and max(values) == max(y for _, y in kept)
    assert len(kept) <= max(limit, 2) + 3


@given(numbers, st.integers(1, 50), st.floats(1, 100))
def test_smoothing_keeps_a_constant(value, length, span):
    smoothed = smooth([(x, value) for x in range(length)], span)
    assert all(y == pytest.approx(value, rel=1e-9, abs=1e-9) for _, y in smoothed)
    assert [x for x, _ in smoothed] == list(range(length))


@given(st.lists(numbers, min_size=100, max_size=300))
def test_a_few_spikes_of_a_pale_curve_do_not_set_the_scale(values):
    firm = Series("average", [(0, 1.0), (1, 2.0)])
    tame = Series("each step", list(enumerate(min(max(y, 1.0), 2.0) for y in values)), raw=True)
    wild = Series("each step", [*tame.points, (1e3, 9e9), (1e3, -9e9)], raw=True)
    assert room_for([firm, tame]) == room_for([firm, wild])
    low, high = room_for([Series("firm", list(enumerate(values)))])
    assert high > max(values) and (low < min(values) or low == 0 == min(values))
    assert min(values) < 0 or low >= 0


def test_numbers_for_people():
    assert [short(v) for v in (0, 1500, 2.5e6, 0.25)] == ["0", "1.5k", "2.5M", "0.25"]
    assert duration(5.4) == "5 s" and duration(321.4) == "5 min 21 s"
    assert duration(10949.46713) == "3 h 2 min" and duration(59.7) == "1 min 0 s"
    assert duration(9.17 * 86400) == "9 d 4 h"


def test_training_is_timed_as_the_leaderboard_does_and_the_wall_clock_stands_beside(run_folder):
    path = run_folder / "metrics.jsonl"
    # 100 s of compiling in the first ten steps, then a second a step; evaluations are not in it
    lines = [
        json.dumps({"step": s, "seconds": 10 * min(s, 10) + max(s - 10, 0)}) for s in range(1, 201)
    ]
    path.write_text("\n".join(lines))
    (run_folder / "attempts.jsonl").write_text(
        '{"stage": "data", "seconds": 60, "ended": "well"}\n'
        '{"stage": "train", "seconds": 300, "ended": "killed"}\n'
        '{"stage": "train", "seconds": 240, "ended": "well"}\n'
        '{"stage": "report", "seconds": 5, "ended": "well"}\n'
    )
    assert load_run(run_folder).timed == 190
    write_report(run_folder)
    report = (run_folder / "report.md").read_text()
    assert "| training | 3 min 10 s without the first 10 steps |" in report
    assert "| stage: data | 1 min 0 s |" in report and "| stage: train | 9 min 0 s |" in report
    assert "| all stages | 10 min 0 s |" in report
    path.write_text("\n".join(lines[:7]))
    assert load_run(run_folder).timed is None


def test_samples_on_the_way_are_a_list_by_step(run_folder):
    text = " <b>citizens</b> |\nand"
    with open(run_folder / "metrics.jsonl", "a") as file:
        for step in (1000, 2000):
            record = {"step": step, "samples": [{"prompt": "My fellow", "text": text}]}
            file.write(json.dumps(record) + "\n")
    html, markdown = (path.read_text(encoding="utf-8") for path in write_report(run_folder))
    assert re.findall(r"^- (step [\d,]+): (.*)$", markdown, re.MULTILINE) == [
        (step, r"My fellow \<b>citizens\</b> \| and") for step in ("step 1,000", "step 2,000")
    ]
    said = Page(html).text
    assert 0 < said.index("step 1,000My fellow <b>") < said.index("step 2,000My fellow <b>")
