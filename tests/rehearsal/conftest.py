"""One set of published files for all tests of the rehearsal."""

from __future__ import annotations

import json

import pytest
from filelock import FileLock
from profiles import FULL
from published_files import CLASSES, IMPORTS, write_all
from world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Written and imported once, whichever process comes first."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if base.name.startswith("popen") else base) / "published"
    with FileLock(f"{root}.lock"):
        record = root / "environment.json"
        if not record.exists():
            classes = len(CLASSES) if FULL else 10
            environment = write_all(root, classes)
            made = World(root, environment)
            for name, path in IMPORTS.items():
                made.call("assets", "import", name, root / path)
            record.write_text(json.dumps(environment))
        return World(root, json.loads(record.read_text()))
