"""The zip that the public leaderboard takes: every dimension's results in the official format."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal

from vdmini.files import replacing
from vdmini_bench.config.vbench_dimensions import OF_MODE
from vdmini_bench.errors import BenchError, ExitCode, SuiteError
from vdmini_bench.system.files import require_writable_file
from vdmini_bench.vbench.completeness import read_record, sha256_of_video
from vdmini_bench.vbench.results import kept_record, kept_result, results_file
from vdmini_bench.vbench.scoring import SCORES, VIDEOS

# A zip of the same results is the same file.
_DATE = (1980, 1, 1, 0, 0, 0)


class IncompleteResultsError(BenchError):
    """A dimension has no results: the leaderboard would count it as 0."""

    exit_code = ExitCode.INCOMPLETE


def write_submission(output: Path, target: Path) -> Literal["t2v", "i2v"]:
    """Pack the results in `output` into `target`; says which leaderboard they are for.

    Raises:
        SuiteError: the folder holds no scores of an official mode, or the zip cannot be written.
        IncompleteResultsError: a dimension is missing, was scored by our own code, or on videos
            that have changed since.
    """
    try:
        written = json.loads((output / SCORES).read_text(encoding="utf-8"))
        mode = written["mode"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SuiteError(f"{output} holds no scores ({error}): give what `vbench score -o` wrote") from error
    if mode not in ("t2v", "i2v"):
        raise SuiteError(f"{output} holds scores of mode {mode}, for which there is no leaderboard")
    names = OF_MODE[mode]
    missing = [name for name in names if kept_result(output, name) is None]
    if missing:
        raise IncompleteResultsError(
            f"{output}: no results for {', '.join(missing)}, which the leaderboard would count as 0:"
            " score them into the same folder first"
        )
    records = {name: kept_record(output, name) for name in names}
    now = {
        video.file: sha256_of_video(Path(written["folder"]), video) for video in read_record(output / VIDEOS).values()
    }
    of_others = [name for name, kept in records.items() if not kept["contents"].items() <= now.items()]
    if of_others:
        raise IncompleteResultsError(
            f"{output}: videos have changed since {', '.join(of_others)} was scored: score all dimensions again"
        )
    native = [name for name, kept in records.items() if "native" in kept["versions"]]
    if native:
        raise IncompleteResultsError(
            f"{output}: {', '.join(native)} scored by our own code, while the leaderboard is of the official one: score"
            " them again without --native"
        )
    require_writable_file(target)
    with replacing(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            file = results_file(output, name)
            archive.writestr(zipfile.ZipInfo(file.name, _DATE), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return "t2v" if mode == "t2v" else "i2v"
