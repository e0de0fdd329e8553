"""The rows of a suite's table: how each is made, what it inherits, what is refused and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_suite import TEXT, error_of, place, write

from vdmini_bench.config.suite import CommonProfile, load_suite

ROW = "      student: {plan: vdmini, distill: {}}\n"


def profile_of(folder: Path, *rows: str) -> CommonProfile:
    return load_suite(write(folder, TEXT.replace(ROW, ROW + "".join(f"      {row}\n" for row in rows)))).profile


def test_an_entry_has_the_profiles_settings_under_its_own(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, "fewer: {sample: {steps: 2}}", "task: {plan: vdmini, distill: {lambda_icd: 0}}")
    assert profile.distill is not None
    fewer, task = profile.models["fewer"], profile.models["task"]
    assert fewer.sample == profile.sample.model_copy(update={"steps": 2})
    assert task.distill == profile.distill.model_copy(update={"lambda_icd": 0.0})
    assert task.sample == profile.sample
    assert profile.models["teacher"].distill is None
    overridden = load_suite(tmp_path / "suite.yaml", None, ("distill.steps=3",)).profile.models
    assert overridden["task"].distill is not None
    assert (overridden["task"].distill.steps, overridden["task"].distill.lambda_icd) == (3, 0.0)


def test_an_entry_is_built_on_another(tmp_path: Path) -> None:
    profile = profile_of(
        tmp_path,
        "fast: {from: student, accelerate: [optimize], sample: {steps: 2}}",
        "faster: {from: fast, accelerate: [compile], sample: {max_guidance: 1.0}}",
    )
    faster, student = profile.models["faster"], profile.models["student"]
    assert (faster.plan, faster.distill) == (student.plan, student.distill)
    assert faster.accelerate == ["optimize", "compile"]
    assert (faster.sample.steps, faster.sample.max_guidance) == (2, 1.0)
    assert profile.measures["faster"] == [
        "denoiser: plan=vdmini, distilled", "sample: steps=2, max_guidance=1.0", "accelerate: optimize",
        "accelerate: compile",
    ]  # fmt: skip
    assert profile.measures["teacher"] == []


def test_what_is_done_to_a_distilled_entry_is_done_to_what_that_made(tmp_path: Path) -> None:
    """A one-step teacher is trained before anything is pruned, and a student is pruned again."""
    profile = profile_of(
        tmp_path,
        "SF-V: {distill: {task: sfv, task_options: {}, real: data, lambda_icd: 0}, sample: {steps: 1}}",
        "untaught: {from: SF-V, plan: vdmini}",
        "VDMini: {from: untaught, distill: {lambda_icd: 0.5}}",
        "again: {from: VDMini, plan: bk-base, distill: {}}",
    )
    models, measures = profile.models, profile.measures
    assert {name: models[name].teacher for name in ("SF-V", "untaught", "VDMini", "again")} == {
        "SF-V": None, "untaught": "SF-V", "VDMini": "SF-V", "again": "VDMini",
    }  # fmt: skip
    assert models["untaught"].distill is None
    # Each learns as the profile says, not as its teacher did.
    assert models["VDMini"].distill is not None
    assert (models["VDMini"].distill.real, models["VDMini"].distill.lambda_icd) == ("teacher", 0.5)
    assert {models[name].sample.steps for name in models if name not in ("teacher", "pruned", "student")} == {1}
    assert measures["VDMini"][:2] == measures["SF-V"]
    assert [len(measures[name]) for name in ("SF-V", "untaught", "VDMini", "again")] == [2, 3, 3, 4]


def test_what_was_done_is_said_alike_however_it_is_written(tmp_path: Path) -> None:
    """Rows are found to share a measure by these words."""
    quantized = "accelerate: [{quantize: torchao%s}]"
    profile = profile_of(
        tmp_path,
        f"one: {{{quantized % ''}}}",
        f"two: {{{quantized % ', type: int8_weight_only'}, sample: {{steps: 4, batch_size: 1}}}}",
        "small: {decoder: {widths: [96, 64, 32], finetune: {checkpoint_every: 3}}}",
        "same: {decoder: {finetune: {}, widths: [96, 64, 32]}}",
    )
    assert profile.measures["one"] == profile.measures["two"]
    assert profile.measures["small"] == profile.measures["same"]
    assert "fine-tuned" in profile.measures["small"][0]


@pytest.mark.parametrize(
    ("row", "fragment", "message"),
    [
        ("fast: {from: studnet}", "from", "no model 'studnet'; did you mean 'student'?"),
        ("fast: {from: fast}", "from", "'fast' is built from itself"),
        ("fast: {from: student, source: a}", "source: a", "'student' is distilled from another: leave from out"),
        ("fast: {teacher: student, plan: none}", "teacher: student", "a model is built on another by from"),
        ("real: {}", "real", "no model can be called 'real'"),
        ("fast: {sample: {height: 64}}", "height: 64", "all models are asked for the same clips"),
        ("fast: {sample: {stpes: 2}}", "stpes", "unknown key 'models.fast.sample.stpes'; did you mean 'steps'?"),
        ("fast: {distil: {}}", "distil: {}", "unknown key 'models.fast.distil'; did you mean 'distill'?"),
        ("fast: {distill: {steps: none}}", "steps: none", "models.fast.distill.steps: "),
        (
            "fast: {accelerate: [{cache: frist_block}]}",
            "accelerate",
            "unknown 'frist_block' (did you mean 'first_block'?)",
        ),
        ("fast: {decoder: {parameters: 1e6, widths: [32]}}", "widths", "models.fast.decoder.widths: widths decide"),
        ("fast: 3", "fast: 3", "models.fast: "),
        ("fast:", "fast:", "models.fast: "),
    ],
)
def test_a_wrong_entry_is_named_with_its_place(tmp_path: Path, row: str, fragment: str, message: str) -> None:
    text = TEXT.replace(ROW, f"{ROW}      {row}\n")
    found = error_of(tmp_path, text)
    start = text.index(row)
    assert found.startswith(f"FILE:{place(text, row[row.index(fragment) :])}: "), (found, start)
    assert message in found


def test_the_keys_of_before_are_refused_with_what_to_write(tmp_path: Path) -> None:
    for key in ("plan", "channels"):
        text = TEXT.replace("    teacher: embedded/svd\n", f"    teacher: embedded/svd\n    {key}: magnitude\n")
        found = error_of(tmp_path, text)
        assert found.startswith(f"FILE:{place(text, f'{key}: magnitude')}: ")
        assert f"student: {{{key}: magnitude, distill: {{}}}}" in found
        assert error_of(tmp_path, TEXT, None, (f"{key}=x",)).startswith(f"--set {key}=x: ")


def test_a_table_has_rows_and_one_of_them_is_the_baseline(tmp_path: Path) -> None:
    assert "missing key 'models'" in error_of(tmp_path, TEXT[: TEXT.index("    models:")])
    text = TEXT.replace("    models:", "    baseline: techer\n    models:")
    assert error_of(tmp_path, text).startswith(f"FILE:{place(text, 'baseline')}: baseline: no model of that name; did")
    assert "baseline" in error_of(tmp_path, TEXT, None, ("models={student: {plan: vdmini}}",))
    assert load_suite(tmp_path / "suite.yaml", None, ("baseline=student",)).profile.baseline == "student"


def test_trainings_differ_by_their_seeds_alone(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, "both: {from: student, decoder: {widths: [96, 64, 32], finetune: {seed: 5}}}")
    both = profile.models["both"]
    third = both.training(2)
    assert third.distill is not None
    assert third.decoder is not None
    assert third.decoder.finetune is not None
    assert (third.distill.seed, third.decoder.finetune.seed) == (2, 7)
    assert both.training(0) == both
    assert profile.models["pruned"].is_trained is False
