"""A run's folder with all that a report shows, without the hours that a run takes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from results_of_runs import FVD, PARAMS, SPEEDUP, row, write_results

from vdmini_bench.results.score import Score, result_line

FRAMES, SIDE, COLUMNS = 5, 16, 3
MODELS = ("real", "teacher", "pruned", "student")
LATENCY = Score(
    "student", "latency_end_to_end", "1", "8x32x32", 835.0, "ms", "lower", 25.0, 10, 10, "ok", (820.0, 850.0)
)
# All that could leave its place in a page: elements, attributes, comments, the script's end, and what parsers mend.
HOSTILE = (
    "<script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "' onmouseover='document.title=1' x='",
    '"><svg onload=document.title="run">',
    "</title></style></script><script>document.title='run'</script>",
    "<!-- a --!> <script>document.title='run'</script>",
    "&lt;script&gt; &amp;amp; &#60;b&#62;",
    "javascript:document.title='run'",
    "a\x00b\x1b[31m\u202e\ud800",
    "{{7*7}} ${7*7} `x`",
)


def scores() -> list[Score]:
    """What five rows of the table need, one metric unavailable."""
    teacher = [replace(FVD, model="teacher", value=336.0), replace(LATENCY, model="teacher", value=1243.0)]
    others = [replace(FVD, model=model, value=value) for model, value in (("real", 212.0), ("pruned", 812.0))]
    missing = replace(FVD, metric="inception_score", value=None, standard_error=None, status="unavailable", blocks=())
    return [*others, *teacher, replace(PARAMS, model="teacher", value=11.0), FVD, LATENCY, SPEEDUP, PARAMS, missing]


MADE = {
    "teacher": [],
    "6 steps": ["sample: steps=6"],
    "int8": ["accelerate: torchao int8_weight_only"],
    "6 steps, int8": ["sample: steps=6", "accelerate: torchao int8_weight_only"],
    '<b>odd</b> "row"': ["denoiser: plan=vdmini; distilled"],
}


def alternatives() -> list[Score]:
    """Rows of the user's names: 6 steps are fast and worse, int8 is slow, the odd row beats fewer steps."""
    found = [replace(LATENCY, model="teacher", value=1000.0), replace(FVD, model="teacher", value=300.0)]
    for name, speedup, fvd in zip([*MADE][1:], (2.0, 0.8, 1.5, 2.0), (400.0, 310.0, 420.0, 350.0), strict=True):
        faster = replace(SPEEDUP, model=name, metric="speedup_end_to_end", value=speedup)
        found += [replace(FVD, model=name, value=fvd), faster, replace(FVD, model=name, metric="psnr", value=31.0)]
    return found


def write_alternatives(root: Path) -> Path:
    """A run of those rows, with two that were distilled, of which the second pruned other blocks."""
    jobs = [{"name": f"{stage} {row}", "key": f"{stage}{key}"} for stage in ("prune", "distill")
            for key, row in enumerate(("a, b", [*MADE][-1]))]  # fmt: skip
    models = {name: {"measures": measures, "trainings": 1} for name, measures in MADE.items()}
    folder = write_run(root, baseline="teacher", models=models, jobs=jobs)
    lines = [result_line(score, row(score)) for score in alternatives()]
    (folder / "results.jsonl").write_text("".join(lines))
    shutil.rmtree(folder / "examples")
    write_examples(folder, ("a", "b"), tuple(MADE))
    for key, block in enumerate(("D.0.1", "U.0.1")):
        shutil.copytree(root / "work" / "distill-d", root / "work" / f"distill-distill{key}")
        student = root / "work" / f"prune-prune{key}" / "student"
        student.mkdir(parents=True)
        (student / "pruning_plan.json").write_text(json.dumps({"removed": [block]}))
    return folder


def write_run(root: Path, prompts: tuple[str | None, ...] = ("a red ball",), name: str = "run-1", **run: Any) -> Path:
    """A run under `root/runs` with an example for each prompt, losses, a plan and an importance study."""
    folder = write_results(root / "runs" / name, scores())
    record = {
        "schema": 1, "status": "complete",
        "argv": ["/bin/vdmini-bench", "run", "suites/ucf101.yaml", "--set", "plan=a b"],
        "suite": {"name": "ucf101", "profile_name": "embedded", "profile": {"sample": {"steps": 12}}},
        "fingerprint": {"cpu": "a processor", "commit": "c0ffee", "dirty": True, "versions": {"torch": "2.13.0"}},
        "inputs": {"teacher": "a" * 64}, "warnings": ["a clip is there twice"],
        "jobs": [{"name": "distill", "key": "d", "needs": []}, {"name": "prune", "key": "p", "needs": []}],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps({**record, **run}))
    write_examples(folder, prompts)
    (root / "work" / "distill-d").mkdir(parents=True, exist_ok=True)
    losses = [f"{step},{100.0 / step},0" for step in range(1, 1001)]
    (root / "work" / "distill-d" / "losses.csv").write_text("\n".join(["step,task,icd", *losses]) + "\n")
    student = root / "work" / "prune-p" / "student"
    student.mkdir(parents=True, exist_ok=True)
    (student / "pruning_plan.json").write_text(json.dumps({"removed": ["D.0.1"]}))
    return folder


def write_examples(folder: Path, prompts: tuple[str | None, ...], models: tuple[str, ...] = MODELS) -> None:
    """Clips whose frame f of model m is one grey: 20 m + 10 f."""
    (folder / "examples").mkdir()
    shown = []
    for place, prompt in enumerate(prompts):
        files = {model: f"{place:02d}-{row:02d}.webp" for row, model in enumerate(models)}
        for model, file in files.items():
            sheet = np.zeros((2 * SIDE, COLUMNS * SIDE, 3), np.uint8)
            for frame in range(FRAMES):
                top, left = frame // COLUMNS * SIDE, frame % COLUMNS * SIDE
                sheet[top : top + SIDE, left : left + SIDE] = 20 * models.index(model) + 10 * frame
            Image.fromarray(sheet).save(folder / "examples" / file, lossless=True)
        differences = {"student": {"content": 0.25, "motion": 1.5}}
        condition = "v_Bowling_g01_c01.avi" if prompt is None else None
        example = {"name": f"{place:05d}", "seed": place, "prompt": prompt, "condition": condition}
        shown.append({**example, "clips": files, "differences": differences})
    size = {"frames": FRAMES, "frames_per_second": 7, "width": SIDE, "height": SIDE, "columns": COLUMNS}
    (folder / "examples" / "examples.json").write_text(json.dumps({**size, "shown": shown}))


def write_study(root: Path, teacher: str = "a" * 64) -> Path:
    """An importance study of two blocks, one of which nothing can stand for, and a unit."""
    root.mkdir(parents=True)
    (root / "importance.json").write_text(json.dumps({"checkpoint_sha256": teacher}))
    lines = ["kind,name,depth,content,motion", "block,D.0.1,0.1,0.5,2", "block,D.0.0,0,,", "unit,D.0,0,1,1"]
    (root / "importance.csv").write_text("\n".join(lines) + "\n")
    return root
