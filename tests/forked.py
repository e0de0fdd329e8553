"""Python processes forked from one that has torch and diffusers: real ones, without the seconds of importing these."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import TextIO

SERVER = multiprocessing.get_context("forkserver")
# Modules of others alone: the project's own are imported anew by each process, as by a user's.
SERVER.set_forkserver_preload(
    [
        "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion",
        "diffusers.models.unets.unet_motion_model",
        "transformers.models.clip.modeling_clip",
        "accelerate",
    ]
)


@dataclass(frozen=True)
class Forked:
    """A process, what it prints as it comes, and the file of its errors."""

    process: ForkServerProcess
    stdout: TextIO
    stderr: TextIO

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        said = self.stdout.read()
        self.process.join()
        self.stderr.seek(0)
        return subprocess.CompletedProcess([], self.process.exitcode or 0, said, self.stderr.read())


@contextmanager
def started(*arguments: object, **variables: str) -> Iterator[Forked]:
    """The process of `python ARGUMENTS` with environment variables besides; killed in the end."""
    reader, writer = SERVER.Pipe(duplex=False)
    with os.fdopen(os.dup(reader.fileno())) as stdout, tempfile.TemporaryFile("w+") as stderr:
        ends = (writer, Connection(os.dup(stderr.fileno()), readable=False))
        process = SERVER.Process(target=_become, args=([*map(str, arguments)], {**os.environ, **variables}, *ends))
        process.start()
        for end in (reader, *ends):
            end.close()
        try:
            yield Forked(process, stdout, stderr)
        finally:
            process.kill()
            process.join()


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` ends with."""
    with started(*arguments, **variables) as child:
        return child.finish()


@contextmanager
def group(count: int, *arguments: object, **variables: str) -> Iterator[list[Forked]]:
    """The processes of a launch, which have its variables and meet by themselves: there is no launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with ExitStack() as stack:
        place |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        each = [{**variables, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        yield [stack.enter_context(started(*arguments, **given)) for given in each]


def _become(arguments: list[str], environment: Mapping[str, str], stdout: Connection, stderr: Connection) -> None:
    """What the arguments ask for, in the forked process."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    stdout.close()
    stderr.close()
    # The server's may be files, which a stream remembers.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    first, *sys.argv = arguments if arguments[0].startswith("-") else ["", *arguments]
    if first == "-c":
        code, sys.argv[0] = sys.argv[0], first
        exec(code, {"__name__": "__main__"})
    elif first == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
