"""The report as a parser sees it: nothing fetched, every text escaped, all parts there, and small enough."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image
from reported_runs import HOSTILE, MADE, MODELS, write_alternatives, write_examples, write_run, write_study
from results_of_runs import FVD, row

from vdmini_bench.cli import main
from vdmini_bench.report.examples import Examples, read_examples
from vdmini_bench.report.page import write_report
from vdmini_bench.report.player import player
from vdmini_bench.report.rendering import templates
from vdmini_bench.results.score import result_line

SECTIONS = [
    "scores", "differences", "tradeoff", "clips", "metrics", "losses", "importance", "environment", "protocol",
    "commands",
]  # fmt: skip
ADDRESSES = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction"}
HERE = Path(__file__).parents[2] / "vdmini_bench" / "report"


class Page(HTMLParser):
    """What a page holds: elements with their attributes, and texts by the element they stand in."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_all_parts_of_a_run_are_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ("a red ball", None))
    write_study(tmp_path / "importance" / "svd")
    page = report(folder)
    assert [part["id"] for part in page.all("section")] == SECTIONS
    words = "\n".join(page.texts)
    for said in (
        "ucf101, profile embedded", "seed 0: a red ball", "seed 1: first frame of v_Bowling_g01_c01.avi",
        "content 0.250, motion 1.500", "393 ± 5.90", "a processor", "profile.sample.steps", "a clip is there twice",
        "vdmini-bench run suites/ucf101.yaml --set 'plan=a b'", "git checkout c0ffee", "torch==2.13.0",
        "inception_score: unavailable for student", "D.0.1: content 0.5, removed by pruning",
    ):  # fmt: skip
        assert said in words, said
    # Real and pruned rows were not timed: they are levels, not discs.
    assert len(page.all("circle")) == 2
    assert words.count("motion, difference") == 2
    assert len(page.all("img")) == 2 * len(MODELS)
    # A loss that was off is no picture.
    assert "task (logarithmic)" in page.texts
    assert "icd" not in page.texts


def test_rows_of_any_names_are_all_there(tmp_path: Path) -> None:
    folder = write_alternatives(tmp_path)
    write_study(tmp_path / "importance" / "svd")
    page = report(folder)
    odd = [*MADE][-1]
    assert [part["id"] for part in page.all("section")] == [*SECTIONS[:3], "multiplied", *SECTIONS[3:]]
    assert not [tag for tag, _ in page.elements if tag == "b"]
    words = "\n".join(page.texts)
    for said in (
        "int8 is slower and worse than teacher", "6 steps, int8 is slower and worse than",
        f"{odd} is better than teacher with fewer steps at its latency: 350 against 400",
        "dotted: teacher with fewer steps", "6 steps + int8", "x1.6 (x1.48 to x1.73)",
        f"{odd} minus teacher", "int8 minus teacher",
        f"vdmini-bench compare teacher '{odd}' --run run-1",
        # Losses of both, and the blocks that the first pruned row lacks.
        "a, b: task (logarithmic)", f"{odd}: task (logarithmic)", "D.0.1: content 0.5, removed by pruning",
    ):  # fmt: skip
        assert said in words, said
    circles = page.all("circle")
    # On the front: the teacher, and the odd row, which is as fast as 6 steps and better.
    assert ["on-front" in (circle["class"] or "") for circle in circles] == [True, False, False, False, True]
    assert len({circle["class"] for circle in circles}) == 5
    assert len([path for path in page.all("path") if path.get("class") == "steps"]) == 1


def test_the_player_has_a_box_for_each_row_and_a_list_of_differences(tmp_path: Path) -> None:
    page = report(write_alternatives(tmp_path))
    boxes = [box for box in page.all("input") if box["type"] == "checkbox"]
    assert [box["value"] for box in boxes] == ["0", "1", "2", "3", "4"]
    figures = [(part["data-row"], part["data-model"]) for part in page.all("figure") if "data-row" in part]
    assert figures == [(str(place), name) for place, name in enumerate(MADE)] * 2
    assert [part["data-baseline"] for part in page.all("figure") if "data-difference" in part] == ["0"] * 4
    # Of speeds, of examples, and of rows that are not the baseline.
    assert [option["value"] for option in page.all("option")][-4:] == ["1", "2", "3", "4"]


def test_names_keep_their_colours_and_long_ones_are_cut(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    names = [f"{place:02d}, a name of many more letters than there is room for" for place in range(14)]
    made = [replace(FVD, model=name, value=place + 1.0) for place, name in enumerate(names)]
    (folder / "results.jsonl").write_text("".join(result_line(each, row(each)) for each in made))
    page = report(folder)
    colours = [bar["class"] for bar in page.all("rect") if "series" in (bar["class"] or "")]
    assert len({*colours}) == 12
    style = (HERE / "style.css").read_text()
    assert all(f".{(colour or '').split()[1]} {{" in style for colour in colours)
    assert "00, a name of many more…" in page.texts


def test_discs_have_areas_as_parameters(tmp_path: Path) -> None:
    teacher, student = (float(circle["r"] or 0) for circle in report(write_run(tmp_path)).all("circle"))
    assert teacher / student == pytest.approx((11.0 / 6.85) ** 0.5, rel=0.01)


def test_nothing_is_fetched_and_only_the_packages_script_runs(tmp_path: Path) -> None:
    page = report(write_run(tmp_path, HOSTILE))
    for tag, attributes in page.elements:
        for name in ADDRESSES & {*attributes}:
            assert (attributes[name] or "").startswith(("#", "data:image/webp;base64,")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base", "form", "video"}
    assert len(page.all("script")) == len(page.all("style")) == 1
    (policy,) = [meta["content"] or "" for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:; script-src 'sha256-")
    assert "unsafe" not in policy
    script, style = (HERE / "player.js").read_text(), (HERE / "style.css").read_text()
    assert not re.search(
        r"\beval\b|Function\(|innerHTML|outerHTML|document\.write|insertAdjacent|fetch|import\(", script
    )
    assert not re.search(r"url\(|@import|https?:", style + script)


def test_prompts_are_shown_as_they_are(tmp_path: Path) -> None:
    page = report(write_run(tmp_path, HOSTILE))
    for seed, prompt in enumerate(HOSTILE[:-2]):
        # Once over its clips and once in the list to choose from.
        assert page.texts.count(f"seed {seed}: {prompt}") == 2
    assert not any(mark in shown for shown in page.texts for mark in "\x00\x1b\u202e\ud800")
    assert "seed 8: a\ufffdb\ufffd[31m\ufffd\ufffd" in page.texts


def test_hostile_names_anywhere_stay_texts(tmp_path: Path) -> None:
    bad = HOSTILE[4]
    settings = {"name": bad, "profile_name": bad, bad: {bad: [bad]}}
    folder = write_run(
        tmp_path,
        suite=settings,
        argv=["vdmini-bench", bad],
        warnings=[bad],
        fingerprint={bad: bad, "commit": bad},
        baseline=f"{bad}teacher",
        models={f"{bad}{name}": {"measures": [bad, name]} for name in MODELS},
    )
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"model": bad + line["model"], "unit": bad, "protocol": bad}
        line["origin"] |= {"note": bad}
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(folder)
    assert len(page.all("script")) == len(page.all("style")) == len(page.all("title")) - len(page.all("circle")) == 1
    assert sum(bad in shown for shown in page.texts) > 20


def written(template: str, **values: object) -> str:
    return templates().from_string(template).render(values)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_comes_back_from_a_page_as_text(words: str, value: str) -> None:
    page = Page(written('<p title="{{ value }}">{{ words }}</p>', value=value, words=words))
    assert [tag for tag, _ in page.elements] == ["p"]
    shown = page.elements[0][1]["title"] or ""
    for before, after in ((words, "".join(page.texts)), (value, shown)):
        assert len(after) == len(before)
        assert all(new in (old, "\ufffd") for old, new in zip(before, after, strict=True))
        assert all(new == old for old, new in zip(before, after, strict=True) if old.isascii() and old.isprintable())


def test_a_run_without_clips_losses_or_student_has_the_parts_it_has(tmp_path: Path) -> None:
    folder = write_run(tmp_path, jobs=[], status="incomplete", fingerprint=None, inputs=None, argv=None)
    (folder / "examples" / "examples.json").unlink()
    lines = (folder / "results.jsonl").read_text().splitlines()
    (folder / "results.jsonl").write_text("".join(line + "\n" for line in lines if '"model": "teacher"' in line))
    page = report(folder)
    assert [part["id"] for part in page.all("section")] == [
        name for name in SECTIONS if name not in ("differences", "losses", "importance")
    ]
    assert any("No clips were kept" in shown for shown in page.texts)
    assert any("This run is incomplete" in shown for shown in page.texts)


def test_a_study_of_another_teacher_is_not_shown_unless_it_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    study = write_study(tmp_path / "importance" / "dit", teacher="b" * 64)
    assert "importance" not in [part["id"] for part in report(folder).all("section")]
    done = CliRunner().invoke(main, ["report", str(folder), "--importance", str(study), "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    assert 'id="importance"' in (tmp_path / "r.html").read_text()


def test_examples_that_make_the_page_too_large_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ("one", "two", "three"))
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    for file in (folder / "examples").glob("*.webp"):
        Image.fromarray(noise).save(file, lossless=True)
    found = read_examples(folder)
    assert found is not None
    one = len(player(replaced(found, 1), "teacher", 10**9))
    assert len(player(found, "teacher", 2 * one)) < 2 * one + 3000
    page = Page(player(found, "teacher", 2 * one))
    assert [part["data-index"] for part in page.all("article")] == ["0", "1"]
    assert any(shown.startswith("1 more examples are in the run's folder") for shown in page.texts)


def replaced(examples: Examples, count: int) -> Examples:
    return Examples(**{**vars(examples), "shown": examples.shown[:count]})


@pytest.mark.parametrize("file", ["../../../../etc/passwd", "/etc/passwd", "sub/x.webp"])
def test_no_file_from_outside_the_run_gets_into_its_report(tmp_path: Path, file: str) -> None:
    folder = write_run(tmp_path)
    record = json.loads((folder / "examples" / "examples.json").read_text())
    record["shown"][0]["clips"]["student"] = file
    (folder / "examples" / "examples.json").write_text(json.dumps(record))
    done = CliRunner().invoke(main, ["report", str(folder)])
    assert done.exit_code == 4
    assert "examples.json cannot be read" in done.stderr


def test_what_is_no_picture_is_not_embedded(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "examples" / "00-03.webp").write_text("<svg onload=x>")
    (folder / "examples" / "00-01.webp").unlink()
    (folder / "examples" / "00-01.webp").symlink_to("00-00.webp")
    assert [part["data-model"] for part in report(folder).all("figure") if "data-model" in part] == ["real", "pruned"]


@pytest.mark.parametrize("broken", ["examples.json", "losses.csv", "results.jsonl", "run.json"])
def test_damaged_files_are_named(tmp_path: Path, broken: str) -> None:
    folder = write_run(tmp_path)
    (path,) = tmp_path.rglob(broken)
    path.write_text("{")
    done = CliRunner().invoke(main, ["report", str(folder)])
    assert done.exit_code == 4
    assert broken in done.stderr


def test_latest_by_name_by_folder_and_none(tmp_path: Path) -> None:
    results = ("--results", str(tmp_path))
    assert CliRunner().invoke(main, ["report", *results]).exit_code == 3
    write_run(tmp_path, name="20260101T000000_a")
    newest = write_run(tmp_path, name="20260102T000000_a")
    for name in ("latest", newest.name, str(newest)):
        (newest / "report.html").unlink(missing_ok=True)
        assert CliRunner().invoke(main, ["report", name, *results]).exit_code == 0
        assert (newest / "report.html").stat().st_size < 60_000
    done = CliRunner().invoke(main, ["report", "latest", *results, "-o", str(newest / "run.json" / "x.html")])
    assert done.exit_code == 4
    assert "cannot be written" in done.stderr


def test_markup_is_not_escaped_twice_and_numbers_are_short() -> None:
    inner = Markup(written("<b>{{ words }}</b>", words="<"))
    assert written("<p>{{ inner }}{{ words }}</p>", inner=inner, words="&") == "<p><b>&lt;</b>&amp;</p>"
    assert written("{{ a }} {{ b }} {{ c }}", a=1.50, b=2, c=0.126) == "1.5 2 0.13"
    with pytest.raises(UndefinedError):
        written("{{ forgotten }}")


def test_examples_read_back(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_examples(tmp_path / "run", ("a", None))
    found = read_examples(tmp_path / "run")
    assert found is not None
    assert [each.prompt for each in found.shown] == ["a", None]
    assert read_examples(tmp_path) is None
