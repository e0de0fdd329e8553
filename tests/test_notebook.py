"""The notebook of the documentation runs from its first cell to its last, as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "docs" / "examples" / "first-student.ipynb"


def test_the_notebook_runs_and_its_student_loads_as_it_was_saved(tmp_path: Path) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "commit it without outputs"
    program = tmp_path / "notebook.py"
    program.write_text("\n".join("".join(cell["source"]) for cell in cells), encoding="utf-8")
    settings = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(NOTEBOOK.parents[2])}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    assert "removed: Block.3, Block.7, Block.11\n" in done.stdout
    assert done.stdout.endswith("largest difference after loading: 0\n")
