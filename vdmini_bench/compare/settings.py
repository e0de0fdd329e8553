"""All settings that decide a result, by dotted names, and those in which two results differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vdmini.requests import SampleSettings
from vdmini_bench.config.protocols import PRESETS
from vdmini_bench.config.sampling import sampling_presets
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
# Digests by row or by source, what the fingerprint has as well, and why something was not measured.
NOT_OF_INPUTS = ("plans", "sources", "versions", "machine_id", "reasons")
# What a row of results says of its model, and of how a metric was measured.
OF_MODEL = ("suite", "suite_version", "suite_sha", "profile", "recipe", "checkpoint_sha")
MEASURED_BY = ("metric_version", "protocol", "n", "n_expected", "machine_id", "gpu", "torch", "commit", "dirty")
# Before the name of a preset of UCF101, where one of sampling has the same.
UCF101 = "ucf101/"
SAMPLING = tuple(field.name for field in fields(SampleSettings))


@dataclass(frozen=True)
class Described:
    """What decides a result: settings by dotted name; those of a preset, which is `partial`, are compared alone."""

    name: str
    settings: Mapping[str, Any]
    partial: bool = False
    about: str = ""


@dataclass(frozen=True)
class Difference:
    """A setting in which two results differ, with both values, None where it is not set or not recorded."""

    setting: str
    a: Any
    b: Any


def describe(name: str, store: Store) -> Described:
    """The settings of what a name means.

    A run's folder or name, or `latest`; `RUN:ROW`; the folder of records that `score` left, or of clips that `sample`
    did; a JSON file of one of these, or what `run --json` or `protocol show --json` printed; a preset.

    Raises:
        SuiteError: it means none of them.
        NothingMeasuredError: the run has no such row.
        BenchError: a file cannot be read.
    """
    path, protocol = Path(name), name.removeprefix(UCF101)
    if name in sampling_presets():
        preset, source = sampling_presets()[name], sampling_presets()[name].source
        about = f"{name}@{preset.version}, github.com/{source.repository} at {source.commit}: {', '.join(source.files)}"
        return _preset(name, "sample", asdict(preset.sampled), "\n".join(filter(None, (about, preset.note))))
    if protocol in PRESETS:
        found = PRESETS[protocol]
        own = {"name": protocol, "version": found.version, "frames": found.frames[0]}
        chosen = f"a suite may change {', '.join(found.suggested)}; the source does not say {found.silent}"
        return _preset(name, "protocol", {**own, **found.suggested, **found.fixed}, f"{found.source}\n{chosen}")
    if is_file(path / SAMPLES_RECORD):
        path = path / SAMPLES_RECORD
    if path.name in (RUN_FILE, RESULTS_FILE) and is_file(path):
        name = str(path.parent)
    elif is_file(path):
        return _of_json(name, _read(path))
    if (folder := named_folder(name, store, None) or results_folder(name, store, RUN_FILE)) is not None:
        return Described(name, _of_run(folder, None))
    if (named := named_model(name, store, None)) is not None:
        return Described(name, _of_run(*named))
    known = nearest_key(name, [*sampling_presets(), *(UCF101 + each for each in PRESETS)])
    raise SuiteError(f"{name}: no run, RUN:ROW, JSON file of results or preset; of the presets: {known}")


def setting_differences(a: Described, b: Described) -> list[Difference]:
    """Every setting in which two results differ, and no other.

    What all metrics have alike is one, of `metrics.*`, and a metric that only one of them has is one. Raises SuiteError
    where they have no setting in common.
    """
    names = list(dict.fromkeys([*a.settings, *b.settings]))
    for side in (a, b):
        names = [name for name in names if name in side.settings] if side.partial else names
    if not names:
        raise SuiteError(f"{a.name} and {b.name} have no setting in common: compare what is of one kind")
    pairs = {name: (a.settings.get(name), b.settings.get(name)) for name in names}
    found: dict[str, Difference] = {}
    for name, pair in pairs.items():
        (metric, _, column), said = name.rpartition("."), name
        before, of_metric, _ = metric.rpartition("metrics.")
        if of_metric and not all(name in side.settings for side in (a, b)):
            one, other = ("measured" if name in side.settings else None for side in (a, b))
            said, pair = metric, (one, other)
        elif of_metric:
            alike = [
                other
                for each, other in pairs.items()
                if each.startswith(before + of_metric) and each.endswith(f".{column}") and None not in other
            ]
            said = f"{before}metrics.*.{column}" if len(alike) > 1 and all(other == pair for other in alike) else name
        if pair[0] != pair[1]:
            found.setdefault(said, Difference(said, *pair))
    return [*found.values()]


def _preset(name: str, section: str, settings: Mapping[str, Any], about: str) -> Described:
    # Tuples are lists in what is recorded.
    plain = json.loads(json.dumps(settings))
    return Described(name, dict(_flat({section: plain})), partial=True, about=about)


def _of_json(name: str, data: Mapping[str, Any]) -> Described:
    settings, rows, clips = (data.get(key) for key in ("settings", "rows", "clips"))
    if isinstance(clips, list):
        # Of `sample`: clips count by what they were asked for.
        asked = key_of([[clip.get(key) for key in ("name", "prompt", "image_sha256")] for clip in clips])
        of_all = {"prompts": asked, "seeds": [clip.get("seed") for clip in clips], "number": len(clips)}
        sample = {**dict.fromkeys(SAMPLING), "preset": data.get("preset"), **data.get("settings", {})}
        origin = {key: value for key, value in data.items() if key not in ("others", "settings", "preset")}
        return Described(name, dict(_flat({**origin, "clips": of_all, "sample": sample})))
    if isinstance(settings, dict):
        return Described(name, settings, bool(data.get("partial")))
    if not isinstance(rows, list):
        raise SuiteError(f"{name}: no result, which is a run, samples.json, or what run or protocol show print as JSON")
    found: dict[str, Any] = {}
    for row in rows:
        metrics = {row.get("metric"): {key: row.get(key) for key in MEASURED_BY}}
        found |= _flat({"rows": {row.get("model"): {**{key: row.get(key) for key in OF_MODEL}, "metrics": metrics}}})
    return Described(name, found)


def _of_run(folder: Path, row: str | None) -> dict[str, Any]:
    """The settings of a run, and of one row, or of each under its name."""
    run = read_run(folder) if (folder / RUN_FILE).exists() else {}
    records = read_records(folder) if (folder / RESULTS_FILE).exists() else []
    rows = dict.fromkeys([*(part_of(run, "models") or {}), *(record.score.model for record in records)])
    if row is not None and row not in rows:
        raise NothingMeasuredError(f"{folder} has no row {row!r}; it has {', '.join(rows) or 'none'}")
    profile, inputs = part_of(run, "suite", "profile") or {}, part_of(run, "inputs") or {}
    found = {
        "suite": {key: part_of(run, "suite", key) for key in ("name", "version", "profile_name")},
        **{key: value for key, value in profile.items() if key not in NOT_OF_A_ROW},
        "inputs": {key: value for key, value in inputs.items() if key not in NOT_OF_INPUTS},
        **{key: part_of(run, key) for key in ("fingerprint", "stages")},
    }
    own = {each: _of_row(run, each, [record for record in records if record.score.model == each]) for each in rows}
    return dict(_flat(found | ({"rows": own} if row is None else own[row])))


def _of_row(run: Mapping[str, Any], row: str, records: Sequence[Record]) -> dict[str, Any]:
    """What is a row's own: how its model was made and sampled, from which files, and how each metric was measured."""
    profile = part_of(run, "suite", "profile")
    clip = part_of(profile, "protocol") or part_of(profile, "clip") or {}
    # Runs of before recorded the suite alone.
    sample = {key: clip.get(key) for key in ("frames", "frames_per_second")}
    sample |= {**(part_of(profile, "models", row, "sample") or {}), **(part_of(run, "models", row, "sampling") or {})}
    metrics = {}
    for record in records:
        how = {key: getattr(record.row, key) for key in MEASURED_BY}
        metrics[record.score.metric] = {**how, "trainings": record.score.trainings}
    return {
        "model": _made(run, row),
        "sample": {**dict.fromkeys((*SAMPLING, "preset")), **sample},
        "checkpoint_sha": next((record.row.checkpoint_sha for record in records if record.row.checkpoint_sha), None),
        "metrics": metrics,
    }


def _made(run: Mapping[str, Any], row: str) -> dict[str, Any]:
    """How a row's model is made, with the digests of what it is made from, and how the row is that it is built on."""
    spec = dict(part_of(run, "suite", "profile", "models", row) or {})
    spec.pop("sample", None)
    parent, sources = spec.pop("teacher", None), part_of(run, "inputs", "sources") or {}
    # Of each the second is a digest, the first where it lay; a file of an accelerating measure stands in its text.
    digests = {name: found[1] for name, found in sources.items() if name in str(spec)}
    made = {**spec, "plan_digest": part_of(run, "inputs", "plans", row), "sources": digests}
    return made if parent is None else {**made, "built_on": _made(run, parent)}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of sections, by dotted name."""
    if not isinstance(value, dict):
        yield name, value
    else:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: no result ({error})") from error
    if not isinstance(data, dict):
        raise BenchError(f"{path}: no result, which is a JSON object")
    return data
