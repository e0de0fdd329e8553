"""The published files of a rehearsal, and commands that find them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class World:
    """A folder with all files, and the variables that say where they are."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment = root, {**os.environ, **environment, "OMP_NUM_THREADS": "1"}

    @property
    def frame_fid(self) -> bool:
        """Whether pytorch-fid's network could be written."""
        return (self.root / "cache" / "checkpoints").is_dir()

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """A command that has its own process group, from the folder of all files."""
        return subprocess.Popen(
            [sys.executable, "-m", "vdmini_bench", *map(str, arguments)], cwd=self.root, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def call(self, *arguments: object, expected: int = 0) -> str:
        """What a command printed."""
        process = self.start(*arguments)
        out, said = process.communicate(timeout=3000)
        assert process.returncode == expected, f"{arguments}: {process.returncode}\n{out[-2000:]}\n{said[-4000:]}"
        return out if expected == 0 else said
