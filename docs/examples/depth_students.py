"""What plans leave of content and motion, over the teachers of a study: depth_students.py RUN RUN RUN [-o TABLE.csv]

Each RUN is the folder of a run of `suites/depth_plans.yaml`, one a teacher. Shares are of that teacher's own margin
over chance, in content (thing and colour) and in motion (the verb); differences are paired by teacher.
"""

import sys
from pathlib import Path
from statistics import fmean

import pandas as pd

from vdmini_bench import load_results
from vdmini_bench.results.stats import mean_interval
from vdmini_bench.studies.worlds import DrawnWorld, Factor

METRICS: dict[Factor, str] = {"content": "embedded-color", "motion": "embedded-human_action"}
PAIRS = (
    ("motion", "shallow", "deep"), ("content", "shallow", "deep"), ("motion", "protect motion", "protect content"),
    ("content", "protect content", "protect motion"), ("motion", "every third", "shallow"),
    ("content", "every third", "shallow"), ("motion", "every third", "random"), ("content", "every third", "random"),
)  # fmt: skip

runs, output = [Path(each) for each in sys.argv[1:] if each != "-o"], None
if "-o" in sys.argv:
    output = runs.pop()
lines = []
for number, run in enumerate(runs):
    found = load_results(run)
    for factor, metric in METRICS.items():
        chance = DrawnWorld.chance[factor]
        values = found[found.metric == metric].set_index("model").value.astype(float)
        for model, value in values.drop(["real"]).items():
            share = (value - chance) / (values["teacher"] - chance)
            lines.append({"teacher": number, "model": model, "factor": factor, "value": value, "share": share})
table = pd.DataFrame(lines)
if output is not None:
    table.round(4).to_csv(output, index=False)
shares = table.set_index(["factor", "model", "teacher"]).share
for factor in METRICS:
    for model in table.model.unique():
        each = [shares[factor, model, number] for number in range(len(runs))]
        print(f"{factor:8} {model:16} {fmean(each):.2f}  each {', '.join(f'{share:.2f}' for share in each)}")
for factor, one, other in PAIRS:
    each = [shares[factor, one, number] - shares[factor, other, number] for number in range(len(runs))]
    if len(each) > 1:
        mean, low, high = mean_interval(each)
        print(f"{factor} of {one} less {other}: {mean:+.2f} ({low:+.2f} to {high:+.2f})")
