"""The page that people look at: whole, safe, readable by machines that read aloud, and honest where little is known."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kdray.artifacts.scores import Score
from kdray.plan import make_scoring_plan
from kdray.report.arms import BASELINE
from kdray.report.meanings import MEANINGS
from kdray.report.page import gallery
from kdray.report.page.drawing import inline
from kdray.report.page.evidence import Evidence
from kdray.report.page.page import write_page
from kdray.report.page.panels import pareto
from kdray.report.page.tables import sheets_of
from kdray.report.results import Checkpoint, Results
from kdray.report.verdict import verdict
from kdray.spec import declare, load_grid
from kdray.spec.components import components
from kdray.spec.grid import Grid
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point
from kdray.spec.sections.base import Use
from kdray.store import Outer, Store
from tests.report.bench import EVIL, Bench
from tests.report.test_report import make_results


class Outline(HTMLParser):
    """What a screen reader goes by: headings in order, anchors and ids, cells of tables, images with their texts."""

    VOID = ("meta", "br", "hr", "img", "input", "link", "col")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.unlabelled: list[str] = []
        self.headers_without_scope = self.scripts = 0
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a":
            self.anchors.append(str(given.get("href")))
        if (tag == "svg" and "figure" in self.open) or tag == "img":
            self.unlabelled += [] if given.get("aria-label") or given.get("alt") else [tag]
        self.headers_without_scope += tag == "th" and "scope" not in given
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()


pytestmark = pytest.mark.slow
DIVERGED, UNSCORED = Point(1.0, 3e-4, 4, 2), Point(1.0, 3e-4, 4, 1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("rich")
    return Bench(folder, items=100).finish(diverged=(DIVERGED,), unscored=(UNSCORED,))


@pytest.fixture(scope="module")
def page(bench: Bench) -> Iterator[Path]:
    """With fewer figures than usual: they take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "MOST", 2)
        patch.setattr(gallery, "MOST_COURSES", 1)
        yield write_page([(bench.results, bench.store, bench.path)], bench.path.parent / "report")


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text()


def visible(text: str) -> str:
    return html.unescape(
        " ".join(re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", " ", text, flags=re.DOTALL).split())
    )


def test_question_verdict_and_main_table_come_first(bench: Bench, text: str) -> None:
    shown = visible(text)
    places = [
        shown.index(each)
        for each in (bench.plan.grid.question, verdict(bench.results)[0], "Method runs", "Score against alpha Every")
    ]
    assert places == sorted(places)


def test_a_screen_reader_finds_its_way(text: str) -> None:
    outline = Outline(text)
    assert outline.open == []
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False)), (
        outline.levels
    )
    assert len(set(outline.ids)) == len(outline.ids)
    assert {anchor[1:] for anchor in outline.anchors if anchor.startswith("#")} <= set(outline.ids)
    assert outline.unlabelled == []
    assert outline.headers_without_scope == 0
    assert '<html lang="en">' in text


def test_others_texts_are_shown_and_never_run(text: str) -> None:
    assert Outline(text).scripts == 0
    assert html.escape(EVIL, quote=False).replace("'", "&#39;") in text
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|@import""", text)  # nothing is asked of any network


def test_what_a_lens_doubts_is_told_aloud(text: str) -> None:
    assert text.count("[doubted: ") == text.count('<p class="who"><strong>') > 0


def test_the_page_is_small_and_its_figures_are_files_too(page: Path, text: str) -> None:
    assert len(text) < 2_000_000
    figures = sorted(path.name for path in (page.parent / "figures").iterdir())
    assert {path.rpartition(".")[2] for path in figures} == {"svg", "png"}
    assert {"effects.svg", "scores-xsum_rougel.png", "pareto.svg", "checkpoints-xsum_lettuce.svg"} <= set(figures)
    svg = (page.parent / "figures" / "effects.svg").read_text()
    assert "dc:date" not in svg


def test_what_diverged_or_was_not_scored_is_told(text: str) -> None:
    shown = visible(text)
    assert f"{DIVERGED.slug} KD 1 diverged loss nan, gradient norm inf at step 13 with lr 0.0003 {EVIL}" in shown
    assert f"{UNSCORED.slug} KD 1 not all scored 8 of 8 measurements are missing" in shown
    assert "16 of 18 scored" in shown


def test_every_headline_metric_is_said_in_words(text: str) -> None:
    """Those of all metrics of answers that kdray has, and in a page those that its tables have."""
    assert {component.declared.scores[0] for component in components(declare.Metric).values()} <= MEANINGS.keys()
    shown = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
    assert f"lettuce {MEANINGS['lettuce']}" in shown
    assert MEANINGS["judge"] not in shown


def test_the_table_has_means_with_their_number_and_the_best_in_bold(bench: Bench) -> None:
    evidence = Evidence(bench.results)
    sheet = sheets_of(evidence)[0]
    assert [line.label for line in sheet.lines] == ["SFT", "KD 0.1", "KD 1", "untrained student", "teacher"]
    column = [column.metric for column in sheet.columns].index("xsum_lettuce")
    assert sheet.columns[column].primary
    cells = [line.cells[column] for line in sheet.lines]
    assert [cell.n for cell in cells] == [6, 6, 4, 0, 0]
    means = [float(cell.mean) for cell in cells[:3]]
    assert [cell.best for cell in cells] == [mean == max(means) for mean in means] + [False, False]
    losses = next(sheet for sheet in sheets_of(evidence) if sheet.title == "Losses")
    ce = [line.cells[0] for line in losses.lines]
    assert [cell.best for cell in ce] == [
        float(cell.mean) == min(float(each.mean) for each in ce[:3]) for cell in ce[:3]
    ] + [False, False]


def test_the_papers_figures_stand_beside_where_the_grid_trains_its_student(tiny_grid) -> None:
    results = make_results(tiny_grid, {"axes.labels": ["gold"]}, metric="xsum/fc")
    assert not any(cell.paper for line in sheets_of(Evidence(results))[0].lines for cell in line.cells)
    results.plan.grid.student.__dict__["model"] = "hf:Qwen/Qwen2.5-7B-Instruct@abc"
    rows = {line.label: line.cells[0].paper for line in sheets_of(Evidence(results))[0].lines}
    assert rows["SFT"]
    assert rows["KD 1"]
    assert rows["SFT"] != rows["KD 1"]
    assert rows["teacher"] == ""


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (lambda c: isinstance(c.subject, str), "No verdict"),
        (lambda c: isinstance(c.subject, str) or c.subject.alpha == 0, "there is nothing to compare yet"),
        (
            lambda c: isinstance(c.subject, str) or (c.subject.alpha, c.subject.lr) in ((0, 1e-3), (1, 1e-3)),
            "too small to conclude",
        ),
        (lambda _: False, "Nothing is scored yet"),
    ],
    ids=["references alone", "one arm", "one cell", "nothing"],
)
def test_a_page_says_what_can_be_said_and_what_not(tiny_grid, tmp_path, keep, says) -> None:
    results = make_results(tiny_grid, {"question": f"Is {EVIL} fine?"})
    kept = [checkpoint for checkpoint in results.checkpoints if keep(checkpoint)]
    poor = Results(results.plan, kept, {})
    text = write_page([(poor, Store(tmp_path / "store"), None)], tmp_path / "out").read_text()
    assert says in visible(text)
    assert Outline(text).scripts == 0
    assert f"Is {EVIL} fine?" in visible(text)


def test_scores_that_are_no_numbers_are_left_out(tiny_grid) -> None:
    results = make_results(tiny_grid, values={0.0: [20.0, 21.0, 19.0, 22.0, 18.0], 1.0: [float("nan")] * 5})
    evidence = Evidence(results)
    assert [cell.mean for line in sheets_of(evidence)[0].lines for cell in line.cells] == [
        "20.00",
        "",
        "10.00",
        "30.00",
    ]
    assert evidence.effects == {}
    assert "nan" not in " ".join(evidence.sentences)


def test_a_figures_svg_can_stand_beside_others() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" height="9pt"'
        ' viewBox="0 0 9 9"><metadata>x</metadata><defs><style>*{fill:red}</style><path id="m" style="stroke:'
        ' #0072b2"/></defs><g clip-path="url(#c)"><use xlink:href="#m"/><text style="fill: #1b1f24">&lt;b&gt;'
        " &amp;</text></g></svg>"
    )
    found = ET.fromstring(inline(svg, "one", 'says "this"'))
    assert (found.get("role"), found.get("aria-label"), found.get("width")) == ("img", 'says "this"', None)
    assert [each.tag for each in found.iter()] == ["svg", "defs", "path", "g", "use", "text"]
    assert found[0][0].attrib == {"id": "one-m", "style": "stroke: var(--c1)"}
    assert found[1].get("clip-path") == "url(#one-c)"
    assert found[1][0].get("href") == "#one-m"
    assert found[1][1].get("style") == "fill: currentColor"
    assert found[1][1].text == "<b> &"


def test_the_front_is_what_no_other_beats_in_both() -> None:
    pairs = [(1, 5), (2, 4), (3, 1), (2, 3), (1, 4)]
    assert pareto(pairs, less=False) == [(1, 5), (2, 4), (3, 1)]
    assert pareto(pairs, less=True) == [(3, 1)]


def test_of_several_grids_each_keeps_its_verdict_and_its_files(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one name in two stores, one of them without a score."""
    for name in ("score_pictures", "heat_pictures", "checkpoint_pictures", "curve_pictures"):
        monkeypatch.setattr(gallery, name, lambda *_: [])
    monkeypatch.setattr(gallery, "pareto_picture", lambda *_: None)
    other = Bench(tmp_path / "other", {"family": "second", "question": "And here?"})
    page = write_page([(each.results, each.store, each.path) for each in (other, bench)], tmp_path / "out")
    text, folder = page.read_text(), page.parent
    outline = Outline(text)
    assert len(set(outline.ids)) == len(outline.ids)
    assert {anchor[1:] for anchor in outline.anchors} <= set(outline.ids)
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False)), (
        outline.levels
    )
    assert sorted(path.name for path in folder.iterdir()) == ["1-rich", "2-rich", "report.html"]
    shown = visible(text)
    assert shown.count(verdict(bench.results)[0]) == 2  # in the table of all grids, and in its own part
    assert "rich (1) second 0/18 xsum_lettuce No verdict: there is nothing to compare yet" in shown
    assert "And here?" in shown
    evidence = Evidence(bench.results)
    spread = evidence.spread(BASELINE, evidence.primary)
    assert f"SFT \u2013 {spread} (6)" in shown
    assert (folder / "2-rich" / "figures" / "g2-effects.svg").is_file()
    assert "xsum" in (folder / "2-rich" / "tables.tex").read_text()
    assert (folder / "1-rich" / "tables.tex").read_text() == ""


def test_the_command_writes_the_page_and_opens_it_where_asked(tiny_grid, run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert run("report", tiny_grid())[0] == 0
    code, _, problem = run("report", tiny_grid(), "--open")
    assert (code, "runtime.store: no folder" in problem) == (2, True)
    (tiny_grid.folder / "store").mkdir()
    code, said, _ = run("report", tiny_grid(), "--open")
    page = tiny_grid.folder / "store" / "report" / "tiny" / "report.html"
    assert (code, opened) == (0, [page.as_uri()])
    assert f"report  {page.relative_to(tiny_grid.folder)}" in said
    unresolved = tiny_grid({"name": "second", "student.model": "hf:org/model"}, "second.yaml")
    assert run("report", tiny_grid(), unresolved)[0] == 0
    assert (tiny_grid.folder / "store" / "report" / "tiny+second" / "report.html").is_file()
    assert len(opened) == 1


def test_models_that_are_only_scored_have_a_page_without_a_verdict(tiny_grid, tmp_path: Path) -> None:
    grid = load_grid(tiny_grid({"score.tasks": [{"name": "xsum", "source": "file:HERE/xsum.jsonl"}]}))
    only = Grid.only_scoring("models", grid.score, Use(name="chat"), None, grid.runtime)
    plan = make_scoring_plan(only, {EVIL: f"file:{tiny_grid.folder}/student"}, Outer(tmp_path / "store"))
    checkpoint = Checkpoint(EVIL, None, None, {MetricName("xsum", "rougeL"): Score(21.5, 0.4, 300)})
    results = Results(plan, [checkpoint], {})
    text = write_page([(results, Store(tmp_path / "store"), None)], tmp_path / "out").read_text()
    shown = visible(text)
    assert "Models are scored here, and none is trained: there is nothing to compare." in shown
    assert f"{EVIL} 21.50 ± 0.40 (300)" in shown
    assert "Value ± standard error over the examples" in shown
    assert Outline(text).scripts == 0


def test_nothing_is_best_where_all_look_the_same(tiny_grid) -> None:
    def best(values: dict[float, list[float]], metric: str) -> list[bool]:
        results = make_results(tiny_grid, values=values, metric=metric)
        return [line.cells[0].best for line in sheets_of(Evidence(results))[0].lines if not line.reference]

    same, other = [20.0, 21.0, 19.0, 22.0, 18.0], [20.001, 21.0, 19.0, 22.0, 18.0]
    assert best({0.0: same, 1.0: other}, "heldout_answers/rougeL") == [False, False]
    assert best({0.0: same, 0.1: other, 1.0: [19.0] * 5}, "heldout_answers/rougeL") == [True, True, False]
    assert best({0.0: same, 0.1: other, 1.0: [19.0] * 5}, "heldout_loss/ce") == [False, False, True]
