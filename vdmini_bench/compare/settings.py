"""All settings that decide a result, by dotted names, and those in which two results differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vdmini.requests import SampleSettings
from vdmini_bench.config.protocols import PRESETS, Preset
from vdmini_bench.config.sampling import SamplingPreset, sampling_presets
from vdmini_bench.config.yaml_file import nearest_key
from vdmini_bench.errors import BenchError, NothingMeasuredError, SuiteError
from vdmini_bench.models.sample_record import SAMPLES_RECORD
from vdmini_bench.results.records import RUN_FILE, Record, is_file, part_of, read_records, read_run
from vdmini_bench.results.runs import named_folder, named_model, results_folder
from vdmini_bench.results.score import RESULTS_FILE
from vdmini_bench.results.store import Store
from vdmini_bench.system.files import key_of
from vdmini_bench.system.text_files import read_text

# What a profile holds for other rows than one's own, for people, or once more in a row's own settings.
NOT_OF_A_ROW = ("models", "published", "stand_in", "sample", "distill")
# Digests by row or by source, and what the fingerprint has as well.
INPUTS_BY_NAME = ("plans", "sources", "versions", "machine_id")
# What a row of results says of how a metric was measured.
MEASURED_BY = ("metric_version", "protocol", "n", "n_expected", "machine_id", "gpu", "torch", "commit", "dirty")
# Before the name of a preset of UCF101, where one of sampling has the same.
UCF101 = "ucf101/"
SAMPLING = tuple(field.name for field in fields(SampleSettings))


@dataclass(frozen=True)
class Described:
    """What decides a result: settings by dotted name. A preset's, which are `partial`, are compared alone.

    `about` is what else there is to say of them.
    """

    name: str
    settings: Mapping[str, Any]
    partial: bool = False
    about: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `protocol show --json` prints it, which `protocol diff` reads."""
        return {"name": self.name, "partial": self.partial, "settings": dict(self.settings), "about": dict(self.about)}


@dataclass(frozen=True)
class Difference:
    """A setting in which two results differ, with both values, None where it is not set or not recorded."""

    setting: str
    a: Any
    b: Any


def describe(name: str, store: Store) -> Described:
    """The settings of what a name means.

    A run's folder or name, or `latest`, `RUN:ROW`, the folder of records that `score` left or of clips that `sample`
    did; a JSON file: of one of these, or what `protocol show --json` printed; a preset of sampling or of UCF101.

    Raises:
        SuiteError: it means none of them.
        NothingMeasuredError: the run has no such row.
        BenchError: a file cannot be read.
    """
    if name in sampling_presets():
        return _of_sampling(name, sampling_presets()[name])
    if (protocol := name.removeprefix(UCF101)) in PRESETS:
        return _of_protocol(name, PRESETS[protocol])
    path = Path(name)
    if is_file(path / SAMPLES_RECORD):
        return _of_samples(name, _read(path / SAMPLES_RECORD))
    if path.name in (RUN_FILE, RESULTS_FILE) and is_file(path):
        return describe(str(path.parent), store)
    if is_file(path):
        return _of_json(name, _read(path))
    if (folder := named_folder(name, store, None) or results_folder(name, store, RUN_FILE)) is not None:
        return Described(name, _of_run(folder, None))
    if (named := named_model(name, store, None)) is not None:
        return Described(name, _of_run(*named))
    known = nearest_key(name, [*sampling_presets(), *(UCF101 + protocol for protocol in PRESETS)])
    raise SuiteError(f"{name}: no run, RUN:ROW, JSON file of results or preset; of the presets: {known}")


def setting_differences(a: Described, b: Described) -> list[Difference]:
    """Every setting in which two results differ, and no other; what all metrics share is said once, as `metrics.*`.

    Raises SuiteError where they have no setting in common.
    """
    names = list(dict.fromkeys([*a.settings, *b.settings]))
    for side in (a, b):
        names = [name for name in names if name in side.settings] if side.partial else names
    if not names:
        raise SuiteError(f"{a.name} and {b.name} have no setting in common: compare what is of one kind")
    values = ((name, a.settings.get(name), b.settings.get(name)) for name in names)
    return _once([Difference(name, one, other) for name, one, other in values if one != other], names)


def _once(found: Sequence[Difference], names: Sequence[str]) -> list[Difference]:
    """The same with a difference that all metrics of a row have alike in one line."""
    merged: dict[str, Difference] = {}
    for each in found:
        before, _, rest = each.setting.rpartition("metrics.")
        _, dot, last = rest.rpartition(".")
        alike = [name for name in names if name.startswith(f"{before}metrics.") and name.endswith(f".{last}")]
        same = [other for other in found if other.setting in alike and (other.a, other.b) == (each.a, each.b)]
        whole = bool(dot) and each.setting in alike and len(same) == len(alike) > 1
        name = f"{before}metrics.*.{last}" if whole else each.setting
        merged.setdefault(name, Difference(name, each.a, each.b))
    return list(merged.values())


def _of_sampling(name: str, preset: SamplingPreset) -> Described:
    sampled = asdict(preset.sampled)
    source = f"github.com/{preset.source.repository} at {preset.source.commit}: {', '.join(preset.source.files)}"
    about = (("preset", f"{name}@{preset.version}"), ("source", source), ("note", preset.note))
    return Described(name, _plain({f"sample.{key}": value for key, value in sampled.items()}), True, about)


def _of_protocol(name: str, preset: Preset) -> Described:
    settings = {
        "name": name.removeprefix(UCF101),
        "version": preset.version,
        "frames": preset.frames[0],
        **preset.suggested,
        **preset.fixed,
    }
    about = (
        ("frames", " or ".join(map(str, preset.frames))), ("suggested, not fixed", ", ".join(preset.suggested)),
        ("source", preset.source), ("the source does not say", preset.silent),
    )  # fmt: skip
    return Described(name, _plain({f"protocol.{key}": value for key, value in settings.items()}), True, about)


def _of_json(name: str, data: Mapping[str, Any]) -> Described:
    if isinstance(data.get("clips"), list):
        return _of_samples(name, data)
    settings, rows = data.get("settings"), data.get("rows")
    if isinstance(settings, dict):
        return Described(name, settings, bool(data.get("partial")))
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        columns = ("suite", "suite_version", "suite_sha", "profile", "recipe", "checkpoint_sha")
        found = {
            f"{row.get('model')}.{prefix}{column}": row.get(column)
            for row in rows
            for prefix, names in (("", columns), (f"metrics.{row.get('metric')}.", MEASURED_BY))
            for column in names
        }
        return Described(name, found)
    raise SuiteError(f"{name}: no result: give a run, samples.json, or what run --json or protocol show --json printed")


def _of_samples(name: str, record: Mapping[str, Any]) -> Described:
    """Of a folder of samples: its clips count by what they were asked for."""
    clips = record.get("clips", [])
    asked = [[clip.get(key) for key in ("name", "prompt", "image_sha256")] for clip in clips]
    of_all = {"prompts": key_of(asked), "seeds": [clip.get("seed") for clip in clips], "number": len(clips)}
    sample = {**dict.fromkeys(SAMPLING), "preset": record.get("preset"), **record.get("settings", {})}
    origin = {key: value for key, value in record.items() if key not in ("clips", "others", "settings", "preset")}
    return Described(name, dict(_flat({**origin, "clips": of_all, "sample": sample})))


def _of_run(folder: Path, row: str | None) -> dict[str, Any]:
    """The settings of a run, and of one row, or of each under its name."""
    run = read_run(folder) if (folder / RUN_FILE).exists() else {}
    records = read_records(folder) if (folder / RESULTS_FILE).exists() else []
    rows = dict.fromkeys([*(part_of(run, "models") or {}), *(record.score.model for record in records)])
    if row is not None and row not in rows:
        raise NothingMeasuredError(f"{folder} has no row {row!r}; it has {', '.join(rows) or 'none'}")
    profile, inputs = (part_of(run, *path) or {} for path in (("suite", "profile"), ("inputs",)))
    shared = {
        "suite": {key: part_of(run, "suite", key) for key in ("name", "version", "profile_name")},
        **{key: value for key, value in profile.items() if key not in NOT_OF_A_ROW},
        "inputs": {key: value for key, value in inputs.items() if key not in INPUTS_BY_NAME},
        "fingerprint": part_of(run, "fingerprint"),
        "stages": part_of(run, "stages"),
    }
    found = dict(_flat(shared))
    for each in rows if row is None else [row]:
        own = _of_row(run, each, [record for record in records if record.score.model == each])
        found |= {name if row is not None else f"{each}.{name}": value for name, value in _flat(own)}
    return found


def _of_row(run: Mapping[str, Any], row: str, records: Sequence[Record]) -> dict[str, Any]:
    """What is a row's own: how its model was made and sampled, from which files, and how each metric was measured."""
    metrics = {}
    for record in records:
        how = {key: getattr(record.row, key) for key in MEASURED_BY}
        metrics[record.score.metric] = {**how, "trainings": record.score.trainings}
    spec = part_of(run, "suite", "profile", "models", row) or {}
    clip = part_of(run, "suite", "profile", "protocol") or part_of(run, "suite", "profile", "clip") or {}
    # Runs of before recorded the suite alone.
    sample = {key: clip.get(key) for key in ("frames", "frames_per_second")} | (spec.get("sample") or {})
    sample |= part_of(run, "models", row, "sampling") or {}
    return {
        "model": _made(run, row),
        "sample": {**dict.fromkeys((*SAMPLING, "preset")), **sample} if spec else None,
        "checkpoint_sha": next((record.row.checkpoint_sha for record in records if record.row.checkpoint_sha), None),
        "metrics": metrics,
    }


def _made(run: Mapping[str, Any], row: str) -> dict[str, Any]:
    """How a row's model is made, with the digests of what it is made from, and how the row is that it is built on."""
    spec = dict(part_of(run, "suite", "profile", "models", row) or {})
    spec.pop("sample", None)
    sources = part_of(run, "inputs", "sources") or {}
    # Of each the second is a digest, the first where it lay; a file of an accelerating measure stands in its text.
    digests = {name: found[1] for name, found in sources.items() if name in str(spec)}
    parent = spec.pop("teacher", None)
    return {
        **spec,
        "plan_digest": part_of(run, "inputs", "plans", row),
        "sources": digests,
        "built_on": None if parent is None else _made(run, parent),
    }


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of sections, by dotted name."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them, so that they equal what was recorded."""
    return dict(json.loads(json.dumps(settings)))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
        if not isinstance(data, dict):
            raise TypeError("it holds no object")
    except (ValueError, TypeError, RecursionError) as error:
        raise BenchError(f"{path}: no result ({error})") from error
    return data
