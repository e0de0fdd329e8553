"""A student is put on the hub: a server here answers what the hub's own client asks of it."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from huggingface_hub import constants

from vdmini.checkpoint import checkpoint_sha256
from vdmini_bench.cli import main
from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.score import COLUMNS, Row

NOTE = "stand-in data and teacher: not comparable with published UCF101 numbers"
MEASURED = replace(
    Row(*("" for _ in COLUMNS)), schema="1", suite="s", suite_version="1", model="student", role="student",
    metric="fvd", metric_version="i3d-1", protocol="p@1/n3x2", value="393.25", se="5.87", n="6", n_expected="6",
    better="lower", status="ok", note=NOTE,
)  # fmt: skip


class Hub(ThreadingHTTPServer):
    """Repositories with whether each is private, the files that were committed, and the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refused = 0


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, facts: dict[str, Any]) -> None:
        body = json.dumps(facts).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path.partition("/api/models/")[2].partition("?")[0]
        known = self.server.private.get(name)
        self._answer(404 if known is None else 200, {"id": name, "private": known, "siblings": []})

    def do_POST(self) -> None:
        hub = self.server
        hub.asked.append(self.path)
        read = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"http://127.0.0.1:{hub.server_port}/"
        if hub.refused or self.headers["Authorization"] != "Bearer hf_of_a_test":
            self._answer(hub.refused or 401, {"error": "no"})
        elif self.path == "/api/repos/create":
            asked = json.loads(read)
            name = f"{asked['organization']}/{asked['name']}"
            there = name in hub.private
            hub.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
            self._answer(409 if there else 200, {"url": url + name})
        elif "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(read)["files"]]
            self._answer(200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/commit/" in self.path:
            for line in map(json.loads, read.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(200, {"commitUrl": f"{url}somebody/small-svd/commit/1", "commitOid": "1", "success": True})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "student"
    done = CliRunner().invoke(main, ["prune", "embedded/svd", "-o", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def student(pruned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pruned, tmp_path / "student"))


def push(student: Path, *options: str, to: str = "somebody/small-svd") -> Result:
    results = ("--results", str(student.parent / "results"))
    return CliRunner().invoke(main, ["push", str(student), to, *results, *options])


def test_what_is_uploaded_is_said_first_and_is_the_student(student: Path, hub: Hub) -> None:
    (student / "optimizer.pt").write_bytes(b"not ours")
    sha = checkpoint_sha256(student)[:16]
    other = replace(MEASURED, checkpoint_sha="0" * 16, value="1234.5")
    add_rows(student.parent / "results" / "leaderboard.csv", [replace(MEASURED, checkpoint_sha=sha), other])
    done = push(student)
    assert done.exit_code == 0, done.output
    assert hub.private == {"somebody/small-svd": True}
    places = [done.stdout.index(each) for each in ("unet/", "goes to somebody/small-svd, private", "uploaded: http")]
    assert places == sorted(places)
    assert "names a place" not in done.stderr
    assert "left out: optimizer.pt" in done.stderr
    expected = {p.relative_to(student).as_posix(): p.read_bytes() for p in student.rglob("*") if p.is_file()}
    card = hub.files.pop("README.md").decode()
    own = expected.pop("README.md").decode()
    assert hub.files.keys() == expected.keys() - {"optimizer.pt"}
    changed = {name for name, content in hub.files.items() if content != expected[name]}
    # Where parts were loaded from on this machine stays here.
    assert changed <= {"model_index.json", "unet/config.json", "vae/config.json"}
    assert "_name_or_path" in json.loads(expected["vae/config.json"])
    assert not any(b"_name_or_path" in hub.files[name] for name in changed)
    for name, content in hub.files.items():
        (student / name).write_bytes(content)
    assert checkpoint_sha256(student)[:16] == sha
    assert card.startswith(own)
    assert "| FVD | 393.25 | 5.87 | 6 | lower | i3d-1 | p@\u200b1/n3x2 | CPU | 1 |" in card
    assert f"1. **{NOTE}**" in card
    assert "1234.5" not in card


def test_the_card_says_what_the_student_is(student: Path) -> None:
    _, front, text = (student / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "diffusers", "pipeline_tag": "image-to-video", "tags": ["vdmini", "svd", "pruned"],
    }  # fmt: skip
    assert "**A stand-in**" in text
    assert "It was not retrained" in text


def test_a_dry_run_asks_nothing_of_the_network(student: Path, hub: Hub) -> None:
    shown = push(student, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "would go to" in shown.stdout
    assert "# A pruned student of embedded/svd" in shown.stdout
    assert hub.asked == []
    found = json.loads(push(student, "--dry-run", "--json").stdout)
    assert (found["url"], found["public"], found["scores"]) == (None, False, 0)
    assert found["files"].keys() == {p.relative_to(student).as_posix() for p in student.rglob("*") if p.is_file()}


def test_a_public_repository_gets_nothing_that_was_not_meant_to_be_public(student: Path, hub: Hub) -> None:
    hub.private["somebody/small-svd"] = False
    refused = push(student)
    assert refused.exit_code == 2, refused.output
    assert "is there already and public: add --public" in refused.stderr
    assert hub.files == {}
    assert push(student, "--public").exit_code == 0
    assert "README.md" in hub.files


@pytest.mark.parametrize("lacking", ["pruning_plan.json", "provenance.json", "model.safetensors", "all"])
def test_a_folder_that_is_no_student_is_refused(lacking: str, student: Path, hub: Hub) -> None:
    if lacking == "all":
        shutil.rmtree(student)
    elif lacking == "model.safetensors":
        for path in student.rglob("*.safetensors"):
            path.unlink()
    else:
        (student / lacking).unlink()
    refused = push(student)
    assert refused.exit_code == 2, refused.output
    assert f"{student} is no student" in refused.stderr
    assert hub.asked == []


@pytest.mark.parametrize("name", ["nobody", "a/b/c", "a/b--c", "a/ b", "https://huggingface.co/a/b"])
def test_a_name_that_is_none_is_refused(name: str, student: Path, hub: Hub) -> None:
    refused = push(student, to=name)
    assert refused.exit_code == 2, refused.output
    assert "write OWNER/NAME" in refused.stderr
    assert hub.asked == []


def test_what_the_hub_refuses_is_named_with_the_next_step(
    student: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refused = 507
    full = push(student)
    assert full.exit_code == 7
    assert "the same command sends what is not there yet" in full.stderr
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    hub.refused = 0
    unknown = push(student)
    assert unknown.exit_code == 7
    assert "hf auth login" in unknown.stderr
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    unreachable = push(student)
    assert unreachable.exit_code == 7
    assert "check the connection" in unreachable.stderr
    assert all("Traceback" not in each.output for each in (full, unknown, unreachable))


def test_places_on_this_machine_are_named_before(student: Path) -> None:
    provenance = json.loads((student / "provenance.json").read_text()) | {"teacher": "/home/somebody/svd"}
    (student / "provenance.json").write_text(json.dumps(provenance))
    assert "provenance.json names a place on this machine: /home/somebody/svd" in push(student, "--dry-run").stderr
