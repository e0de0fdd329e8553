from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini_bench.config.suite import Profile, load_suite
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import STAGE_VERSIONS
from vdmini_bench.suites.distributions import Distributions
from vdmini_bench.suites.job_graph import Job, JobGraph
from vdmini_bench.suites.jobs import Inputs, plan_jobs

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
PLANS = {"teacher": "none", "fewer steps": "none", "pruned": "vdmini", "student": "vdmini"}
OTHER_PLANS = {**PLANS, "pruned": "uniform", "student": "uniform"}
INPUTS = Inputs(
    teacher="t", plans=PLANS, sources={}, train_clips="train", condition_clips="condition", real_clips="real",
    reference="reference", i3d="i3d", versions={"torch": "2.8"}, machine_id="m",
)  # fmt: skip
SAMPLES = {f"sample {model}" for model in PLANS}
SAMPLED = {f"measure {model}" for model in PLANS} | {f"fidelity {model}" for model in PLANS if model != "teacher"}
MEASURES = {"measure real", "measure static"} | {name for name in SAMPLED if name.startswith("measure")}
COUNTS = {"count teacher", "count pruned"}
# The student takes as long as what was pruned alike.
TIMES = {"time teacher", "time fewer steps", "time pruned"}
OF_STUDENT = {"distill student", "sample student", "measure student", "fidelity student"}
OF_PRUNED = {"prune pruned", "sample pruned", "measure pruned", "fidelity pruned", "count pruned", "time pruned"}
ALL = {"encode", "reference", *OF_STUDENT, *OF_PRUNED, *SAMPLES, *SAMPLED, *MEASURES, *COUNTS, *TIMES}


def profile(*overrides: str) -> Profile:
    return load_suite(SUITE, "smoke", overrides).profile


def keys(chosen: Profile, inputs: Inputs = INPUTS) -> dict[str, str]:
    return {name: job.key for name, job in plan_jobs(chosen, inputs, "folder").jobs.items()}


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
    plan = [*plan_jobs(profile(), INPUTS, "folder").jobs.values()]
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
        ("timing.runs=4", TIMES),
        ("sample.batch_size=5", {*SAMPLES, *SAMPLED, *COUNTS, *TIMES}),
        ("sample.steps=5", {*SAMPLES, *SAMPLED, *COUNTS, *TIMES} - {"sample fewer steps", "measure fewer steps"}),
        ("models.fewer steps.sample.steps=2", {each for each in ALL if each.endswith("fewer steps")}),
        # What is real is the same for all seeds, and no seed takes longer than another.
        ("sample.seed=1", {*SAMPLES, *SAMPLED}),
        ("sample.seed=0", set()),
        ("sample.width=64", {"encode", *OF_STUDENT, *SAMPLES, *SAMPLED, *COUNTS, *TIMES}),
        ("sample.noise_strength=0.5", {"encode", *OF_STUDENT, *SAMPLES, *SAMPLED, *COUNTS, *TIMES}),
        ("models.student.distill.lambda_icd=0", OF_STUDENT),
        ("stand_in=words", set()),
        ("dtype=bfloat16", ALL - {"reference", "measure real", "measure static"}),
        ("protocol.version=2", {"reference", *MEASURES}),
        ("protocol.frames_per_second=7.0", set()),
        ("protocol.frames_per_second=23.976", ALL - {"prune pruned"}),
        # First frames are then those of the files, whatever their rates.
        ("protocol.resample=false", {"reference", *SAMPLES, *SAMPLED, *MEASURES}),
        ("protocol.frame_fid=true", {"reference", *MEASURES}),
        ("protocol.frames=12", ALL - {"prune pruned"}),
        ("protocol.blocks=3", {"reference", *SAMPLES, *SAMPLED, *MEASURES}),
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
        ("plans", {*OF_PRUNED, *OF_STUDENT}),
        ("train_clips", {"encode", *OF_STUDENT}),
        ("condition_clips", {*SAMPLES, *SAMPLED, *MEASURES} - {"measure real"}),
        ("real_clips", {"measure real"}),
        ("reference", {"reference", *MEASURES}),
        ("i3d", {"reference", *MEASURES}),
        ("machine_id", TIMES),
    ],
)
def test_an_input_changes_the_jobs_that_read_it_and_no_other(field: str, expected: set[str]) -> None:
    before, after = (
        keys(profile()),
        keys(profile(), replace(INPUTS, **{field: OTHER_PLANS if field == "plans" else "changed"})),
    )
    assert changed(before, after) == expected


def test_other_versions_change_every_job() -> None:
    assert changed(keys(profile()), keys(profile(), replace(INPUTS, versions={"torch": "2.9"}))) == ALL


@settings(deadline=None)
@given(st.sampled_from(sorted({*STAGE_VERSIONS} - {"draw", "judge", "total", "decoder"})))
def test_a_new_stage_version_changes_its_jobs_and_those_downstream(stage: str) -> None:
    before = [*plan_jobs(profile(), INPUTS, "folder").jobs.values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STAGE_VERSIONS, stage, 999)
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
    assert [*kind.open(Store(tmp_path), measured=False, remember=False).jobs] == [
        "prune pruned",
        "encode",
        "distill student",
    ]
    with pytest.raises(AssertionError, match="only scores"):
        kind.open(Store(tmp_path), remember=False)


def graph(*overrides: str) -> JobGraph:
    chosen = profile(*overrides)
    plans = {row: str(spec.plan or "none") for row, spec in chosen.models.items()}
    return plan_jobs(chosen, replace(INPUTS, plans=plans), "folder")


def test_a_new_row_runs_its_own_jobs_and_a_row_less_recomputes_nothing() -> None:
    before = {job.key: name for name, job in graph().jobs.items()}
    more = graph("models.again={from: student, sample: {steps: 2}}")
    new = {name for name, job in more.jobs.items() if job.key not in before}
    assert new == {"sample again", "measure again", "fidelity again", "time again"}
    assert {job.key for job in more.jobs.values()} > {*before}
    # The student is then what prunes.
    fewer = graph("models={teacher: {}, student: {plan: vdmini, distill: {}}}")
    assert {job.key for job in fewer.jobs.values()} < {*before}
    assert fewer.models["student"].prune == "prune student"


def test_another_name_recomputes_nothing() -> None:
    before = graph("models={teacher: {}, student: {plan: vdmini, distill: {}}}")
    after = graph("models={teacher: {}, ours: {plan: vdmini, distill: {}}}")
    assert {job.key for job in before.jobs.values()} == {job.key for job in after.jobs.values()}


def test_rows_share_the_work_that_they_have_in_common() -> None:
    """A decoder is one for all denoisers of a teacher, a training one for all ways of running what it made."""
    found = graph(
        "models={teacher: {}, student: {plan: vdmini, distill: {}}, small: {decoder: {widths: [96, 64, 32]}}, both:"
        " {from: student, decoder: {widths: [96, 64, 32]}}, fast: {from: both, accelerate: [optimize]}}"
    )
    made = {stage: [name for name, job in found.jobs.items() if job.stage == stage] for stage in ("distill", "decoder")}
    assert made == {"distill": ["distill student"], "decoder": ["decoder small"]}
    assert found.models["fast"].weights == ("distill student", "decoder small")
    assert len({*found.sampled.values()}) == 5


def test_training_seeds_repeat_what_is_trained_and_nothing_else() -> None:
    found = graph("seeds={training: 3}", "baseline=student")
    assert {*found.models} == {*PLANS, "student (training 2)", "student (training 3)"}
    distilled = [name for name, job in found.jobs.items() if job.stage == "distill"]
    assert distilled == ["distill student", "distill student (training 2)", "distill student (training 3)"]
    (measured,) = (each for each in found.measured if each.jobs[0] == "measure student")
    assert measured.jobs == tuple(name.replace("distill", "measure") for name in distilled)
    assert len({found.jobs[name].key for name in distilled}) == 3
    # The first one is that of a single training.
    assert found.jobs["distill student"].key == graph().jobs["distill student"].key


def test_a_training_is_compared_with_the_baselines_of_the_same_seed() -> None:
    found = graph(
        "models={teacher: {}, one: {plan: vdmini, distill: {}}, two: {plan: uniform, distill: {}}}",
        "seeds={training: 2}", "baseline=one",
    )  # fmt: skip
    needs = {name: job.needs for name, job in found.jobs.items() if job.stage == "fidelity"}
    assert needs["fidelity two (training 2)"] == ("sample one (training 2)", "sample two (training 2)")
    assert needs["fidelity teacher"] == ("sample one", "sample teacher")
