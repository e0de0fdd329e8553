"""A headless Chromium, driven over a pipe: no server, no port, no driver to install."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATH = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)

# It reads orders from its descriptor 3 and writes answers to 4.
LAUNCH = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for descriptor, place in zip(high, (3, 4), strict=True):
    os.dup2(descriptor, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def why_no_browser() -> str | None:
    """Why there is no browser here, or None; on some systems the command only says how to install one."""
    if PATH is None:
        return f"no Chromium here: none of {', '.join(NAMES)}"
    try:
        said = subprocess.run([PATH, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{PATH} does not start: {error}"
    return None if said.returncode == 0 else f"{PATH} does not start: {said.stderr.strip()[:200]}"


class Browser:
    """One page of a browser; `events` holds what it told so far, by name."""

    def __init__(self, orders: int, answers: int) -> None:
        self.orders, self.answers = orders, answers
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.order("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.order("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.order(f"{domain}.enable")

    def order(self, method: str, **parameters: object) -> dict[str, Any]:
        """Do something and wait for its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.orders, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append((answer.get("method", ""), answer.get("params", {})))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.order("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < until, expression
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press and release a key."""
        words = {"text": key} if len(key) == 1 else {}
        self.order("Input.dispatchKeyEvent", type="keyDown", key=key, **words)
        self.order("Input.dispatchKeyEvent", type="keyUp", key=key)

    def told(self, name: str) -> list[dict[str, Any]]:
        """What the browser told under a name."""
        return [parameters for event, parameters in self.events if event == name]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select.select([self.answers], [], [], 60)[0], "the browser does not answer"
            more = os.read(self.answers, 1 << 20)
            assert more, "the browser has ended"
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, ended afterwards."""
    assert PATH is not None
    order_read, order_write = os.pipe()
    answer_read, answer_write = os.pipe()
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    command = [sys.executable, "-c", LAUNCH, str(order_read), str(answer_write), PATH, *OPTIONS, *sandbox]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={profile}"],
        pass_fds=(order_read, answer_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(order_read)
    os.close(answer_write)
    try:
        yield Browser(order_write, answer_read)
    finally:
        os.close(order_write)
        process.terminate()
        process.wait(30)
        os.close(answer_read)
