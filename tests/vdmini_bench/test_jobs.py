from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini_bench.config.suite import Profile, load_suite
from vdmini_bench.results.store import Store
from vdmini_bench.suites import jobs
from vdmini_bench.suites.distributions import Distributions
from vdmini_bench.suites.jobs import GENERATED, ROWS, Inputs, Job, plan_jobs

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
INPUTS = Inputs(
    teacher="t", plan="vdmini", train_clips="train", condition_clips="condition", real_clips="real",
    reference="reference", i3d="i3d", versions={"torch": "2.8"}, machine_id="m",
)  # fmt: skip
SAMPLES = {f"sample {model}" for model in GENERATED}
MEASURES = {f"measure {row}" for row in ROWS}
OF_STUDENT = {"distill", "sample student", "measure student", "time"}
OF_PRUNED = {"prune", "sample pruned", "measure pruned", *OF_STUDENT}
ALL = {"encode", "prune", "distill", "reference", "time", *SAMPLES, *MEASURES}


def profile(*overrides: str) -> Profile:
    return load_suite(SUITE, "smoke", overrides).profile


def keys(chosen: Profile, inputs: Inputs = INPUTS) -> dict[str, str]:
    return {name: job.key for name, job in plan_jobs(chosen, inputs).items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def downstream(plan: list[Job], names: set[str]) -> set[str]:
    found = set(names)
    for job in plan:
        if found & set(job.needs):
            found.add(job.name)
    return found


def test_every_job_comes_once_and_after_what_it_needs() -> None:
    plan = [*plan_jobs(profile(), INPUTS).values()]
    assert {job.name for job in plan} == ALL
    assert len({job.key for job in plan}) == len(plan) == len(ALL)
    for position, job in enumerate(plan):
        assert set(job.needs) <= {earlier.name for earlier in plan[:position]}
        assert job.estimate > 0


def test_the_same_settings_have_the_same_keys() -> None:
    assert keys(profile()) == keys(profile())


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("distill.steps=11", OF_STUDENT),
        ("distill.lambda_icd=0", OF_STUDENT),
        ("distill.seed=1", OF_STUDENT),
        ("distill.batch_size=3", OF_STUDENT),
        ("plan=other", set()),
        ("timing.runs=4", {"time"}),
        ("sample.batch_size=5", {*SAMPLES, *(f"measure {model}" for model in GENERATED), "time"}),
        ("sample.steps=3", {*SAMPLES, *(f"measure {model}" for model in GENERATED), "time"}),
        # What is real is the same for all seeds, and no seed takes longer than another.
        ("sample.seed=1", {*SAMPLES, *(f"measure {model}" for model in GENERATED)}),
        ("sample.seed=0", set()),
        ("sample.width=64", {"encode", *OF_STUDENT, *SAMPLES, *(f"measure {model}" for model in GENERATED)}),
        ("sample.noise_strength=0.5", {"encode", *OF_STUDENT, *SAMPLES, *(f"measure {model}" for model in GENERATED)}),
        ("dtype=bfloat16", ALL - {"reference", "measure real", "measure static"}),
        ("protocol.version=2", {"reference", *MEASURES}),
        ("protocol.frames_per_second=7.0", set()),
        ("protocol.frames_per_second=23.976", ALL - {"prune"}),
        # First frames are then those of the files, whatever their rates.
        ("protocol.resample=false", {"reference", *SAMPLES, *MEASURES}),
        ("protocol.frame_fid=true", {"reference", *MEASURES}),
        ("protocol.frames=12", ALL - {"prune"}),
        ("protocol.blocks=3", {"reference", *SAMPLES, *MEASURES}),
        # These change what is written when, or which clips there are to choose from, but no output.
        ("distill.checkpoint_every=1", set()),
        ("dataset.drawn_train_per_group=2", set()),
    ],
)
def test_a_setting_changes_the_jobs_that_read_it_and_no_other(override: str, expected: set[str]) -> None:
    assert changed(keys(profile()), keys(profile(override))) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("teacher", ALL - {"reference", "measure real", "measure static"}),
        ("plan", OF_PRUNED),
        ("train_clips", {"encode", *OF_STUDENT}),
        ("condition_clips", {*SAMPLES, *MEASURES} - {"measure real"}),
        ("real_clips", {"measure real"}),
        ("reference", {"reference", *MEASURES}),
        ("i3d", {"reference", *MEASURES}),
        ("machine_id", {"time"}),
    ],
)
def test_an_input_changes_the_jobs_that_read_it_and_no_other(field: str, expected: set[str]) -> None:
    before, after = keys(profile()), keys(profile(), replace(INPUTS, **{field: "changed"}))
    assert changed(before, after) == expected


def test_other_versions_change_every_job() -> None:
    assert changed(keys(profile()), keys(profile(), replace(INPUTS, versions={"torch": "2.9"}))) == ALL


@given(st.sampled_from(sorted({*jobs.STAGE_VERSIONS} - {"draw", "judge", "total"})))
def test_a_new_stage_version_changes_its_jobs_and_those_downstream(stage: str) -> None:
    before = [*plan_jobs(profile(), INPUTS).values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(jobs.STAGE_VERSIONS, stage, 999)
        after = keys(profile())
    own = {job.name for job in before if job.stage == stage}
    assert own
    assert changed({job.name: job.key for job in before}, after) == downstream(before, own)


def test_a_distillation_alone_digests_nothing_that_only_scores_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise AssertionError("only scores read that")

    for name in ("shipped_digest", "networks_digest"):
        monkeypatch.setattr(f"vdmini_bench.suites.distributions.{name}", refuse)
    kind = Distributions(load_suite(SUITE, "smoke"))
    assert [*kind.open(Store(tmp_path), measured=False, remember=False).jobs] == ["encode", "prune", "distill"]
    with pytest.raises(AssertionError, match="only scores"):
        kind.open(Store(tmp_path), remember=False)
