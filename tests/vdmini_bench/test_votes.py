"""From a page of pairs to a row in the table: who counts, what is said, and files that are refused."""

from __future__ import annotations

import base64
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from reported_runs import COLUMNS, HOSTILE, MODELS, SIDE, write_run

from vdmini_bench.cli import main
from vdmini_bench.report.examples import read_examples
from vdmini_bench.report.player import embedded_examples
from vdmini_bench.results.leaderboard import read_leaderboard
from vdmini_bench.results.records import read_records
from vdmini_bench.votes.ballot import KEY_FILE, MOST_PAIRS, Key, choose_pairs, make_ballot, read_key
from vdmini_bench.votes.page import write_vote_page

# Log strengths of the four rows, far enough apart to be told apart by few votes.
STRENGTHS = {"real": 0.8, "teacher": 0.0, "pruned": -1.5, "student": -0.7}
Choose = Callable[[str, str], str]


def bench(*arguments: object, results: Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--results", str(results)])


def make_page(root: Path, prompts: tuple[str | None, ...] = ("a", "b", "c", "d")) -> tuple[Path, Key]:
    folder = write_run(root, prompts)
    write_vote_page(folder)
    return folder, read_key(folder / KEY_FILE)


def attentive(key: Key, seed: int) -> Choose:
    """Somebody who sees which clip is spoilt, and else prefers models by their strengths."""
    dice = random.Random(seed)

    def choose(left: str, right: str) -> str:
        one, other = key.clips[left], key.clips[right]
        if one.spoilt or other.spoilt:
            return "right" if one.spoilt else "left"
        if dice.random() < 0.2:
            return "tie"
        odds = np.exp(STRENGTHS[one.model] - STRENGTHS[other.model])
        return "left" if dice.random() < odds / (1 + odds) else "right"

    return choose


def vote(path: Path, key: Key, choose: Choose, **changed: Any) -> Path:
    """A file as the page saves it, sides by chance."""
    dice = random.Random(str(path.name))
    pairs = [dice.sample(pair, 2) for pair in dice.sample(key.pairs, len(key.pairs))]
    votes = [{"left": left, "right": right, "choice": choose(left, right)} for left, right in pairs]
    file = {"format": "vdmini-votes", "version": 1, "study": key.study, "voter": path.stem, "votes": votes}
    path.write_text(json.dumps({**file, **changed}, indent=1))
    return path


@pytest.fixture(autouse=True)
def same_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same votes in every run of these tests: names of clips, and so sides and orders, come from the secret."""
    monkeypatch.setattr("vdmini_bench.votes.ballot.secrets.token_hex", lambda length: "0" * 2 * length)


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Key, list[Path]]:
    """A run with its key, and the files of eight people who looked."""
    folder, key = make_page(tmp_path)
    return folder, key, [vote(tmp_path / f"ann-{n}.json", key, attentive(key, n)) for n in range(8)]


def test_votes_become_rows_that_table_report_and_compare_read(
    study: tuple[Path, Key, list[Path]], tmp_path: Path
) -> None:
    folder, _, files = study
    done = bench("votes", "merge", *files, "--json", results=tmp_path)
    assert done.exit_code == 0, done.output
    merged = json.loads(done.stdout)
    for each in merged["preferences"]:
        low, high = each["interval"]
        assert low - 0.5 <= STRENGTHS[each["model"]] <= high + 0.5, each
    assert merged["votes"] == 8 * 4 * 6
    assert 0.05 < merged["alpha"] < 0.9
    records = {record.score.model: record for record in read_records(folder) if record.score.metric == "preference"}
    assert [*records] == ["real", "pruned", "teacher", "student"]
    assert (records["teacher"].score.value, records["teacher"].score.standard_error) == (0.0, 0.0)
    assert records["student"].row.checkpoint_sha == next(
        record.row.checkpoint_sha for record in read_records(folder) if record.score.metric == "fvd"
    )
    assert [row.metric for row in read_leaderboard(tmp_path / "leaderboard.csv")] == ["preference"] * 4
    page = bench("report", folder, "-o", tmp_path / "page.html", results=tmp_path)
    assert page.exit_code == 0, page.output
    assert "preferred (log odds)" in (tmp_path / "page.html").read_text(encoding="utf-8")
    compared = bench("compare", "teacher", "pruned", "--run", folder, "--json", results=tmp_path)
    [delta] = [row for row in json.loads(compared.stdout)["rows"] if row["metric"] == "preference"]
    # The interval that `compare` gives is the one of the votes.
    pruned = next(each for each in merged["preferences"] if each["model"] == "pruned")
    middle = sum(pruned["interval"]) / 2
    assert (delta["ci"], delta["delta"]) == (pytest.approx(pruned["interval"], abs=1e-6), pytest.approx(middle))
    assert delta["verdict"] == "pruned is worse"


def test_a_second_merge_replaces_the_rows_of_the_first(study: tuple[Path, Key, list[Path]], tmp_path: Path) -> None:
    folder, _, files = study
    others = [record.score for record in read_records(folder)]
    for chosen in (files[:4], files):
        assert bench("votes", "merge", *chosen, results=tmp_path).exit_code == 0
    after = [record.score for record in read_records(folder)]
    assert after[:-4] == others
    assert {score.metric for score in after[-4:]} == {"preference"}
    assert after[-1].n == 8 * 4 * 3


def test_who_does_not_look_is_left_out_and_named(study: tuple[Path, Key, list[Path]], tmp_path: Path) -> None:
    _, key, files = study
    scores = bench("votes", "merge", *files, results=tmp_path).output.partition("votes, of")[0]
    blind = vote(tmp_path / "eve.json", key, lambda left, right: "tie")
    said = bench("votes", "merge", *files, blind, results=tmp_path).output
    assert f"left out: eve ({blind}): 0 of 8 attention checks passed" in said
    assert said.partition("votes, of")[0] == scores
    assert "left out:" not in bench("votes", "merge", *files, blind, "--checks", 0, results=tmp_path).output
    # Somebody who left before any check is no better known.
    checks = [pair for pair in key.pairs if any(key.clips[name].spoilt for name in pair)]
    left, right = next(pair for pair in key.pairs if pair not in checks)
    one = [{"left": left, "right": right, "choice": "left"}]
    early = vote(tmp_path / "early.json", key, attentive(key, 1), votes=one)
    alone = bench("votes", "merge", early, results=tmp_path)
    assert alone.exit_code == 3
    assert f"left out: early ({early}): 0 of 0 attention checks passed" in alone.output


def test_a_model_that_always_loses_has_no_score_and_says_why(tmp_path: Path) -> None:
    folder, key = make_page(tmp_path)

    def against_pruned(usual: Choose) -> Choose:
        def choose(left: str, right: str) -> str:
            models, spoilt = [key.clips[name].model for name in (left, right)], {left, right} & checks
            return usual(left, right) if spoilt or "pruned" not in models else ("right", "left")[models.index("pruned")]

        return choose

    checks = {name for name, clip in key.clips.items() if clip.spoilt}
    files = [vote(tmp_path / f"{n}.json", key, against_pruned(attentive(key, n))) for n in range(4)]
    done = bench("votes", "merge", *files, results=tmp_path)
    assert done.exit_code == 0, done.output
    record = {each.score.model: each for each in read_records(folder) if each.score.metric == "preference"}
    assert record["student"].score.value is not None
    assert (record["pruned"].score.value, record["pruned"].score.status) == (None, "unavailable")
    assert "no finite score beside teacher" in record["pruned"].row.note


BROKEN: dict[str, tuple[dict[str, Any] | str, str]] = {
    "no JSON": ("{", "expected"),
    "a list": ("[]", "a file of votes"),
    "another format": ({"format": "else"}, "format"),
    "a later version": ({"version": 2}, "version"),
    "no voter": ({"voter": "  "}, "voter"),
    "an unknown key": ({"comment": "x"}, "unknown key 'comment'"),
    "no choice": ({"votes": [{"left": "a", "right": "b"}]}, "missing key 'votes.0.choice'"),
    "another choice": ({"votes": [{"left": "a", "right": "b", "choice": "both"}]}, "choice"),
    "a pair of no page": ({"votes": [{"left": "a", "right": "b", "choice": "tie"}]}, "vote 1 is on no pair"),
    "a page of no run": ({"study": "0123456789abcdef"}, "no run"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_none_of_votes_is_refused_by_name(tmp_path: Path, case: str) -> None:
    _, key = make_page(tmp_path, ("a",))
    content, said = BROKEN[case]
    path = tmp_path / "bad.json"
    if isinstance(content, str):
        path.write_text(content)
    else:
        vote(path, key, attentive(key, 1), **content)
    done = bench("votes", "merge", path, results=tmp_path)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert case == "a page of no run" or "bad.json" in done.output
    assert "Traceback" not in done.output


def test_files_that_do_not_go_together_are_refused(study: tuple[Path, Key, list[Path]], tmp_path: Path) -> None:
    _, key, (first, second, *_) = study
    missing = bench("votes", "merge", first, tmp_path / "none.json", results=tmp_path)
    assert (missing.exit_code, "none.json" in missing.output) == (2, True)
    copied = tmp_path / "copy.json"
    copied.write_text(first.read_text())
    twice = bench("votes", "merge", first, copied, results=tmp_path)
    assert (twice.exit_code, "both of voter 'ann-0'" in twice.output) == (2, True)
    again = json.loads(first.read_text())["votes"]
    turned = {**again[0], "left": again[0]["right"], "right": again[0]["left"]}
    double = vote(tmp_path / "double.json", key, attentive(key, 1), votes=[*again, turned])
    refused = bench("votes", "merge", double, results=tmp_path)
    assert (refused.exit_code, "has a vote already" in refused.output) == (2, True)
    other = vote(tmp_path / "other.json", key, attentive(key, 1), study="0123456789abcdef")
    unlike = bench("votes", "merge", second, other, results=tmp_path)
    assert (unlike.exit_code, "several pages" in unlike.output) == (5, True)


def test_the_page_is_the_same_again_and_never_takes_the_key_of_other_clips(tmp_path: Path) -> None:
    folder, key = make_page(tmp_path, (*HOSTILE, "x"))
    page = (folder / "vote.html").read_bytes()
    assert not [model for model in MODELS if model in page.decode()]
    assert key.secret.encode() not in page
    assert bench("report", folder, "--vote", results=tmp_path).exit_code == 0
    assert (folder / "vote.html").read_bytes() == page
    Image.new("RGB", (SIDE * COLUMNS, SIDE * 2), "red").save(folder / "examples" / "00-01.webp", lossless=True)
    refused = bench("report", folder, "--vote", results=tmp_path)
    assert (refused.exit_code, "whose votes need it" in refused.output) == (4, True)
    assert read_key(folder / KEY_FILE) == key
    (folder / KEY_FILE).write_text("{}")
    assert bench("report", folder, "--vote", results=tmp_path).exit_code == 4


def test_without_clips_there_is_nothing_to_vote_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "examples" / "examples.json").unlink()
    assert bench("report", folder, "--vote", results=tmp_path).exit_code == 3
    assert bench("report", folder, "--vote", "--importance", tmp_path, results=tmp_path).exit_code == 2


@pytest.mark.parametrize(("rows", "prompts"), [(2, 1), (4, 6), (5, 6), (9, 6), (13, 6), (13, 3)])
def test_pairs_link_all_rows_and_judge_each_about_as_often(rows: int, prompts: int) -> None:
    names = [f"row {n}" for n in range(rows)]
    pairs = choose_pairs([names] * prompts, random.Random(0))
    assert len(pairs) == min(MOST_PAIRS, prompts * rows * (rows - 1) // 2)
    assert len({(place, frozenset(pair)) for place, *pair in pairs}) == len(pairs)
    linked = {names[0]}
    for _ in names:
        linked |= {name for _, *pair in pairs if linked & {*pair} for name in pair}
    assert linked == {*names}
    counts = Counter(name for _, *pair in pairs for name in pair).values()
    assert max(counts) - min(counts) <= 4


def test_half_of_a_spoilt_clip_is_covered_in_every_frame_alike(tmp_path: Path) -> None:
    examples = read_examples(write_run(tmp_path, ("a",)))
    assert examples is not None
    ballot = make_ballot(examples, embedded_examples(examples), "teacher")
    names = {clip.model: name for name, clip in ballot.key.clips.items() if not clip.spoilt}
    [spoilt] = [name for name, clip in ballot.key.clips.items() if clip.spoilt and clip.model == "teacher"]
    whole, covered = (
        np.array(Image.open(io.BytesIO(base64.b64decode(ballot.sources[name].partition(",")[2]))).convert("RGB"))
        for name in (names["teacher"], spoilt)
    )
    changed = (whole != covered).any(2)
    assert changed.mean() == pytest.approx(0.5, abs=0.02)
    assert (changed[:SIDE, :SIDE] == changed[SIDE:, SIDE : 2 * SIDE]).mean() > 0.98
