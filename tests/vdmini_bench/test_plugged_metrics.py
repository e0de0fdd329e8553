"""Metrics of other packages, installed as their installers leave them: metadata and modules in a folder on the path."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_scoring import SUITE, clip, fill, score

from vdmini_bench.config.suite import load_suite
from vdmini_bench.metrics.plugged import plugged_metrics, plugged_versions
from vdmini_bench.results.records import read_records
from vdmini_bench.results.score import COLUMNS, Row, row_of
from vdmini_bench.results.table import wide_table
from vdmini_bench.suites.jobs import plan_scoring

pytestmark = pytest.mark.usefixtures("small_network")
METRICS = """
import numpy as np

class Brightness:
    name, version, unit, better = "brightness", "3", "levels", "higher"

    def of_block(self, block):
        assert len(block.features.embeddings) == len(block.clips) == 3
        return np.mean([clip.mean() for clip in block.clips])

class Likeness:
    name, version, unit, better = "likeness", "1", "", "lower"

    def of_block(self, block):
        ours, real = (np.mean([clip.mean() for clip in clips]) for clips in (block.clips, block.real))
        return abs(ours - real)

class Fault(Brightness):
    name = "fault"

    def of_block(self, block):
        raise ValueError("of many\\nlines")

class Endless(Brightness):
    name = "endless"

    def of_block(self, block):
        return float("inf")

BRIGHTNESS, LIKENESS, FAULT, ENDLESS = Brightness(), Likeness(), Fault(), Endless()
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution where Python finds it; its metrics are entry points by name."""

    def put(package: str = "tiny_metrics", source: str = METRICS, **metrics: str) -> None:
        site = tmp_path / f"site-{package}"
        info = site / f"{package}-1.dist-info"
        info.mkdir(parents=True)
        (site / f"{package}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = [f"{name} = {value}" for name, value in metrics.items()]
        (info / "entry_points.txt").write_text("\n".join(["[vdmini_bench.metrics]", *lines]))
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, package, raising=False)
        plugged_metrics.cache_clear()

    plugged_metrics.cache_clear()
    yield put
    plugged_metrics.cache_clear()


def rows_of(videos: Path, *options: object) -> dict[str, dict[str, Any]]:
    result = score(videos, "--no-flow", "--json", *options)
    assert result.exit_code == 0, result.output
    return {row["metric"]: row for row in json.loads(result.stdout)["rows"]}


def test_a_metric_is_scored_and_stands_in_the_table(videos: Path, tmp_path: Path, install: Install) -> None:
    before = rows_of(videos)
    install(brightness="tiny_metrics:BRIGHTNESS")
    after = rows_of(videos)
    found = after.pop("brightness")
    means = [np.mean([clip(number).mean() for number in block]) for block in (range(3), range(3, 6))]
    # The videos are compressed.
    assert found["status"] == "ok", found["note"]
    assert found["value"] == pytest.approx(np.mean(means), rel=0.02)
    assert found["se"] > 0
    assert (found["metric_version"], found["unit"], found["n"]) == ("tiny_metrics:3", "levels", 6)
    assert {name: row["value"] for name, row in after.items()} == {name: row["value"] for name, row in before.items()}
    (folder,) = {
        each.parent for each in tmp_path.glob("results/scored/*/results.jsonl") if "brightness" in each.read_text()
    }
    header, (line,) = wide_table(row_of(each.score, {}) for each in read_records(folder))
    assert line[header.index("brightness (levels)")].startswith(f"{found['value']:.0f} ± ")
    assert "brightness" in score(videos, "--no-flow").stdout


def test_real_clips_can_be_read_where_there_are_some(videos: Path, tmp_path: Path, install: Install) -> None:
    install(likeness="tiny_metrics:LIKENESS")
    assert rows_of(videos, "--against", fill(tmp_path / "real", 4, start=50))["likeness"]["status"] == "ok"
    # The shipped real side is statistics alone, and that is their metric's to say.
    assert rows_of(videos)["likeness"]["status"] == "failed"


def test_what_goes_wrong_in_one_is_named_and_breaks_no_other(videos: Path, install: Install) -> None:
    install(
        brightness="tiny_metrics:BRIGHTNESS", fault="tiny_metrics:FAULT", endless="tiny_metrics:ENDLESS",
        absent="no_such_package:METRIC", lacking="tiny_metrics:NOTHING", other="tiny_metrics:BRIGHTNESS",
        shape="tiny_metrics:Brightness", fvd="tiny_metrics:BRIGHTNESS", twice="tiny_metrics:BRIGHTNESS",
    )  # fmt: skip
    install("second_package", "raise SystemError('of an import')", raising="second_package:M", twice="second_package:M")
    rows = rows_of(videos)
    assert rows["brightness"]["status"] == rows["fvd"]["status"] == "ok"
    said = {
        "fault": ("failed", "ValueError: of many (in tiny_metrics:3"),
        "endless": ("failed", ""),
        "absent": ("unavailable", "no_such_package:METRIC cannot be loaded: ModuleNotFoundError"),
        "lacking": ("unavailable", "cannot be loaded: AttributeError"),
        "raising": ("unavailable", "second_package:M cannot be loaded: SystemError: of an import"),
        "other": ("unavailable", "is no metric: its name has to be 'other'"),
        "shape": ("unavailable", "it is a class: name an object of it"),
        "tiny_metrics:fvd": ("unavailable", "cannot be called 'fvd'"),
        "twice": ("unavailable", "several packages have it: second_package:M, tiny_metrics:BRIGHTNESS"),
    }
    assert {name: rows[name]["status"] for name in said} == {name: status for name, (status, _) in said.items()}
    assert all(note in rows[name]["note"] for name, (_, note) in said.items())
    shown = score(videos, "--no-flow")
    assert shown.exit_code == 0
    assert "Traceback" not in shown.output
    assert "fault failed: " in shown.stdout


def test_kept_scores_are_of_the_metrics_and_versions_that_are_installed(install: Install) -> None:
    protocol = load_suite(SUITE, "smoke").profile.protocol

    def key() -> str:
        return plan_scoring(protocol, "videos", "clips", "real", "networks", {}).jobs["measure videos"].key

    without = key()
    install(brightness="tiny_metrics:BRIGHTNESS")
    assert plugged_versions() == {"brightness": "tiny_metrics:3"}
    third = key()
    install("newer_metrics", METRICS.replace('"3"', '"4"'), brightness_of_them="newer_metrics:BRIGHTNESS")
    assert len({without, third, key()}) == 3


def test_metrics_of_ours_alone_have_the_columns_that_they_had() -> None:
    empty = dict.fromkeys(COLUMNS, "") | {"model": "teacher", "status": "ok", "value": "1"}
    rows = [Row(**empty | {"metric": name, "metric_version": "1"}) for name in ("fvd", "kvd")]
    assert wide_table(rows)[0] == ["model", "params (M)", "FVD", "status"]
    theirs = Row(**asdict(rows[1]) | {"metric": "sharpness", "metric_version": "package:1"})
    assert wide_table([*rows, theirs])[0] == ["model", "params (M)", "FVD", "sharpness", "status"]
