"""What a console cannot show is written in another way, and ends no program after hours of work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TALKER = """
from vdmini_bench.system.progress import say, write_readable
from vdmini_bench.system.tables import print_table
write_readable()
print_table("\\u03bc \\udce9", ["model", "FVD"], [["caf\\u00e9", "123.4 \\u00b1 1.25"], ["plain", "x\\u00d7y \\u2026"]])
say("\\u00b1 \\udce9 \\u65e5")
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_a_console_of_any_encoding_shows_every_cell(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", TALKER], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    title, *table = done.stdout.decode(encoding).splitlines()
    assert title.endswith("\\udce9")
    # The lines of a table stay straight.
    assert len({len(line) for line in table}) == 1
    text = "\n".join(table)
    assert ("123.4 ± 1.25" if encoding != "ascii" else "123.4 +/- 1.25") in text
    assert ("café" if encoding != "ascii" else "caf\\xe9") in text
    said = done.stderr.decode(encoding)
    assert said.startswith("+/- \\udce9 \\u65e5" if encoding == "ascii" else "± \\udce9")
