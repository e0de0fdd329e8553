"""A student as the hub takes it: its files, its card with what was measured of it, and one commit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vdmini.checkpoint import CARD_FILE, PLAN_FILE, PROVENANCE_FILE, checkpoint_sha256, read_plan
from vdmini.errors import PlanError
from vdmini.model_card import markdown_text, model_card
from vdmini.models.loading import load_model
from vdmini_bench.errors import HubError, SuiteError
from vdmini_bench.results.leaderboard import read_leaderboard
from vdmini_bench.results.score import Row
from vdmini_bench.results.table import TITLES
from vdmini_bench.system.tables import markdown_table

# What `save_student` writes; anything else in the folder is not part of the student.
SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
RESULTS_TITLE = "## What was measured"


@dataclass(frozen=True)
class Student:
    """What would be uploaded: files with their sizes in bytes, the card, how many scores it has, and warnings."""

    folder: Path
    files: dict[str, int]
    card: str
    scores: int
    told: list[str]


def read_student(folder: Path, leaderboard: Path) -> Student:
    """Look at a student's folder, and find what a leaderboard has of its weights.

    Raises:
        SuiteError: the folder is no student's.
        BenchError: the leaderboard cannot be read.
    """
    try:
        plan, sha = read_plan(folder), checkpoint_sha256(folder)
        provenance = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, PlanError) as error:
        raise SuiteError(
            f"{folder} is no student ({error}): give a folder with {PLAN_FILE}, {PROVENANCE_FILE} and weights, as"
            " `prune`, `distill` and runs leave them"
        ) from error
    files = {each.relative_to(folder).as_posix(): each for each in sorted(folder.rglob("*")) if each.is_file()}
    own = {name: each for name, each in files.items() if each.suffix in SUFFIXES and "/." not in f"/{name}"}
    rows = [row for row in read_leaderboard(leaderboard) if row.checkpoint_sha == sha[:16] and row.status == "ok"]
    if (folder / CARD_FILE).is_file():
        card = (folder / CARD_FILE).read_text(encoding="utf-8")
    else:
        # Made before students had cards.
        model = load_model(folder, device="meta")
        card = model_card(model.pipeline or model.denoiser, plan, provenance)
    if rows:
        card = card.partition(RESULTS_TITLE)[0].rstrip() + f"\n\n{results_section(rows)}"
    left = [name for name in files if name not in own and name != CARD_FILE]
    told = [f"not part of the student, and left out: {name}" for name in left]
    places = [value for value in provenance.values() if isinstance(value, str) and Path(value).is_absolute()]
    told += [f"{PROVENANCE_FILE} names a place on this machine: {place}" for place in places]
    sizes = {CARD_FILE: len(card.encode()), **{name: each.stat().st_size for name, each in own.items()}}
    return Student(folder, sizes, card, len(rows), told)


def results_section(rows: Sequence[Row]) -> str:
    """What was measured of a student, each number with what it may be compared under and what must be known of it."""
    notes = [*dict.fromkeys(row.note for row in rows if row.note)]
    header = ["metric", "value", "±", "clips or runs", "better", "version", "protocol", "hardware", "note"]
    lines = [
        [
            TITLES.get(row.metric, row.metric), f"{row.value} {row.unit}".strip(), row.se or "-", row.n, row.better,
            row.metric_version, row.protocol, row.gpu or "CPU", str(notes.index(row.note) + 1) if row.note else "-",
        ]
        for row in rows
    ]  # fmt: skip
    shown = "\n".join(f"{number}. **{markdown_text(note)}**" for number, note in enumerate(notes, start=1))
    return "\n\n".join(filter(None, (RESULTS_TITLE, shown, markdown_table(header, lines)))) + "\n"


def _content(path: Path) -> str | bytes:
    """What is uploaded of a file: its path, or a configuration without where diffusers loaded its part from."""
    if path.name not in ("model_index.json", "config.json"):
        return str(path)
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.pop("_name_or_path", None) is None:
        return str(path)
    return (json.dumps(settings, indent=2) + "\n").encode()


def upload(student: Student, repository: str, public: bool) -> str:
    """Make the repository where there is none, and upload all files in one commit; the commit's address.

    Raises:
        SuiteError: the name is none, or the repository is public where that was not asked for.
        HubError: the hub cannot be reached, or refused.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError

    no_name = SuiteError(f"{repository!r} is no name on the hub: write OWNER/NAME")
    if repository.count("/") != 1:
        raise no_name
    api = HfApi()
    contents = {name: _content(student.folder / name) for name in student.files if name != CARD_FILE}
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        # One that was there keeps who may read it.
        if not public and not api.model_info(repository).private:
            raise SuiteError(f"{repository} is there already and public: add --public, or give another name")
        whole = contents | {CARD_FILE: student.card.encode()}
        added = [CommitOperationAdd(name, content) for name, content in whole.items()]
        message = "Upload a pruned student with its plan and card"
        return str(api.create_commit(repository, added, commit_message=message).commit_url)
    except SuiteError:
        raise
    except HFValidationError as error:
        raise no_name from error
    except Exception as error:  # network, token, quota: the hub's client raises unrelated types
        raise HubError(f"cannot upload to {repository!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What went wrong, in one line, and what to do about it."""
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or "Token" in type(error).__name__:
        step = "run `hf auth login` with a token that may write there, or set HF_TOKEN"
    elif status is not None:
        step = "the same command sends what is not there yet"
    else:
        step = "check the connection (and HF_ENDPOINT, HF_HUB_OFFLINE), then give the same command again"
    return f"{said}; next: {step}"
