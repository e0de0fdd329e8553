"""The environment of the official package: made in one command, pinned, checked, and called with files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.locks import file_lock
from vdmini_bench.assets.cache import LOCK_TIMEOUT_SECONDS, cache_folder, own_folder
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.errors import BenchError, MissingAssetsError, SuiteError
from vdmini_bench.system.files import key_of, write_atomically
from vdmini_bench.system.text_files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = "vdmini-bench assets vbench"
# setuptools: the official code imports pkg_resources, which newer ones have not.
REQUIREMENTS = (f"vbench=={VBENCH_VERSION}", "torch", "torchvision", "setuptools>=77.0.3,<81")
MARKER = "vdmini-vbench.json"
# In a folder from the first moment of its creation, so that what an interrupt leaves is known to be ours.
UNFINISHED = "vdmini-unfinished"
# transformers 4.33 needs tokenizers below 0.14, which have no wheels for newer Pythons; our pins are of this one.
PYTHON = (3, 11)
# What a user's own constraint file decides here too; its other pins are for another environment.
_BUILD = re.compile(
    r"^(--?(extra-index-url|index-url|find-links|trusted-host|pre|i|f)\b|torch(vision)?\b|(pytorch[-_])?triton|nvidia[-_])",
    re.IGNORECASE,
)


class DriverError(BenchError):
    """The official code failed; `log` holds all that it printed."""

    def __init__(self, what: str, reason: str, log: Path) -> None:
        super().__init__(f"{what}: {reason} (all of it in {log})")
        self.log = log


@dataclass(frozen=True)
class Environment:
    """A folder that holds, or will hold, a virtual environment with the official package."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter, there or not."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def command(self) -> tuple[str, ...]:
        """What runs the driver in it: isolated, so that neither our modules nor the user's reach it."""
        return (str(self.python), "-I", str(Path(__file__).with_name("driver.py")))

    def record(self) -> dict[str, Any] | None:
        """What its creation left, with every package's version; None where it is not complete or of another version."""
        try:
            found: dict[str, Any] = json.loads((self.folder / MARKER).read_text(encoding="utf-8"))
            if found["vbench"] != VBENCH_VERSION or not self.python.exists():
                return None
            # What is installed since by other hands scores too.
            found["versions"] |= self._installed(found["versions"])
            return found
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _installed(self, names: Iterable[str]) -> dict[str, str]:
        """The versions of packages as they are now, of those whose record pip left in the usual place."""
        found = {}
        for place in ("lib/python*", "Lib"):
            for folder in self.folder.glob(f"{place}/site-packages/*.dist-info"):
                package, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
                found[_normalised(package)] = version
        return {name: found[_normalised(name)] for name in names if _normalised(name) in found}

    def require(self) -> dict[str, Any]:
        """The same.

        Raises:
            MissingAssetsError: it is not there.
        """
        found = self.record()
        if found is None:
            raise MissingAssetsError(f"{self._fault()}; next: `{COMMAND}`")
        return found

    def _fault(self) -> str:
        if not (self.folder / MARKER).is_file():
            left = ", only one whose making was interrupted" if _is_ours(self.folder) else ""
            return f"no environment for vbench {VBENCH_VERSION} in {self.folder}{left}"
        if not self.python.exists():
            return f"the environment for vbench in {self.folder} has lost its Python, {self.python}"
        return f"the environment in {self.folder} is not of vbench {VBENCH_VERSION}, or its record is damaged"

    def prompt_file(self) -> Path:
        """The official prompts of text to video, which are inside the package.

        Raises:
            MissingAssetsError: the environment or the file is not there.
        """
        self.require()
        found = [*self.folder.glob("[Ll]ib*/**/site-packages/vbench/VBench_full_info.json")]
        if not found:
            raise MissingAssetsError(f"{self.folder} holds no VBench_full_info.json; next: `{COMMAND} --again`")
        return found[0]


def default_environment() -> Environment:
    """The environment in `VDMINI_VBENCH_ENV`, or else in the asset cache."""
    return Environment(own_folder("VDMINI_VBENCH_ENV", cache_folder() / "vbench-env").absolute())


def weights_folder() -> Path:
    """Where the official code looks for weights: `VBENCH_CACHE_DIR`, or else `~/.cache/vbench`."""
    return own_folder("VBENCH_CACHE_DIR", Path("~/.cache/vbench")).absolute()


def create_environment(environment: Environment, python: str = sys.executable, *, again: bool = False) -> None:
    """Make the environment with pip, unless it is there and whole; one that was not finished is made anew.

    Versions are ours (`constraints.txt` beside this file), but those of torch and its companions are the user's where
    `VDMINI_CONSTRAINTS` names a file.

    Raises:
        MissingAssetsError: the interpreter is of another version than the package wants.
        BenchError: the folder is another thing, or pip failed.
    """
    with _locked(environment.folder):
        if environment.record() is not None and not again:
            return
        _check_python(python)
        _clear(environment.folder)
        log = environment.folder.with_name(environment.folder.name + ".log")
        log.unlink(missing_ok=True)
        _run([python, "-m", "venv", str(environment.folder)], log, "python -m venv")
        constraints = environment.folder / "constraints.txt"
        constraints.write_text(constraint_lines(os.environ.get("VDMINI_CONSTRAINTS")), encoding="utf-8")
        pip = [str(environment.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _run([*pip, "-c", str(constraints), *REQUIREMENTS], log, "pip install")
        check_environment(environment)
        (environment.folder / UNFINISHED).unlink()


def constraint_lines(own: str | None) -> str:
    """Our pins; where the user has a constraint file, what it says of torch's build instead of what ours says.

    Raises:
        MissingAssetsError: the file cannot be read.
    """
    ours = resources.files("vdmini_bench.vbench").joinpath("constraints.txt").read_text(encoding="utf-8")
    if own is None:
        return ours
    try:
        theirs = read_text(Path(own).expanduser())
    except (SuiteError, RuntimeError) as error:
        raise MissingAssetsError(f"VDMINI_CONSTRAINTS: cannot read {own} ({error})") from error
    kept = [line for line in ours.splitlines() if not _BUILD.match(line)]
    return "\n".join([*kept, *(line for line in theirs.split("\n") if _BUILD.match(line)), ""])


def check_environment(environment: Environment) -> dict[str, Any]:
    """Import every dimension's module there, and keep what was found as the environment's record, which is returned.

    Its `problems` say of each dimension what keeps its module from being imported, None for those that can run.

    Raises:
        DriverError: not even torch can be imported.
    """
    modules = {name: f"{dimension.package}.{name}" for name, dimension in DIMENSIONS.items()}
    request = {"action": "inspect", "modules": [*modules.values()]}
    response = call_driver(environment.command, request, environment.folder / "inspection", "inspect")
    record = {
        "vbench": response["versions"].get("vbench"),
        "versions": response["versions"],
        "device": response["device"],
        "problems": {name: response["problems"][module] for name, module in modules.items()},
        "packages": _packages(environment),
    }
    write_atomically(environment.folder / MARKER, json.dumps(record, indent=1))
    return record


def call_driver(command: Sequence[str], request: Mapping[str, Any], folder: Path, what: str) -> dict[str, Any]:
    """Have the driver answer a request; `folder` takes request, response and log.

    Raises:
        DriverError: it ended with an error, or without a response, or with one that is no JSON object.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked, answer, log = (folder.absolute() / f"{what}{suffix}" for suffix in (".request", ".response", ".log"))
    write_atomically(asked, json.dumps({"device": "auto", **request}))
    answer.unlink(missing_ok=True)
    with log.open("wb") as file:
        try:
            # The official code writes and downloads into its working folder.
            done = subprocess.run(  # noqa: S603 - a list of words, no shell
                [*command, str(asked), str(answer)], stdout=file, stderr=file, cwd=folder, env=_environment()
            )
        except OSError as error:
            raise DriverError(what, f"{error.filename} cannot be run ({error.strerror}): `{COMMAND}`", log) from error
    if done.returncode != 0:
        # The kernel kills with 9 what takes the last memory.
        how = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise DriverError(what, f"{how}: {_last_line(log)}", log)
    try:
        response = json.loads(answer.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DriverError(what, f"ended without a result ({type(error).__name__}): {_last_line(log)}", log) from error
    if not isinstance(response, dict):
        raise DriverError(what, "its response is no object", log)
    return response


def _normalised(package: str) -> str:
    return re.sub("[-_.]+", "-", package).lower()


def packages_digest(record: Mapping[str, Any]) -> str:
    """A digest of the versions that determine scores: a package that one more dimension needs changes no other's."""
    return key_of(record["versions"])


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**environment, "VBENCH_CACHE_DIR": str(weights_folder()), "PYTHONUNBUFFERED": "1"}


def _check_python(python: str) -> None:
    code = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingAssetsError(f"{python} is no Python interpreter ({error}): give one with --python") from error
    if tuple(map(int, done.stdout.split())) != PYTHON:
        wanted, found = ".".join(map(str, PYTHON)), done.stdout.strip().replace(" ", ".")
        raise MissingAssetsError(
            f"vbench {VBENCH_VERSION} wants Python {wanted}, {python} is {found}: `{COMMAND} --python python{wanted}`"
        )


def _run(command: Sequence[str], log: Path, what: str) -> None:
    with log.open("ab") as file:
        done = subprocess.run(command, stdout=file, stderr=file, check=False)  # noqa: S603 - a list of words, no shell
    if done.returncode != 0:
        raise BenchError(f"{what} failed with exit code {done.returncode}: {_last_line(log)} (all of it in {log})")


def _clear(folder: Path) -> None:
    """Make an empty folder that is marked as ours, in place of an earlier environment and of nothing else."""
    if folder.exists() and not _is_ours(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchError(f"{folder} holds other things, which are left as they are: choose another VDMINI_VBENCH_ENV")
    # Moved first: half of an environment, as an interrupt leaves it, could not be told from other things.
    old = folder.with_name(f".{folder.name}.vdmini-removed")
    if old.exists():
        shutil.rmtree(old)
    if folder.exists():
        folder.rename(old)
    folder.mkdir()
    (folder / UNFINISHED).touch()
    shutil.rmtree(old, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    return (folder / MARKER).is_file() or (folder / UNFINISHED).is_file()


def _packages(environment: Environment) -> list[str]:
    command = [str(environment.python), "-m", "pip", "--disable-pip-version-check", "freeze"]
    done = subprocess.run(  # noqa: S603 - a list of words, no shell
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode != 0:
        raise BenchError(f"{environment.folder}: pip cannot list its packages; next: `{COMMAND} --again`")
    return done.stdout.splitlines()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import Timeout

    try:
        held = file_lock(folder.with_name(folder.name + ".lock")).acquire(timeout=LOCK_TIMEOUT_SECONDS)
    except Timeout as error:
        raise BenchError(f"another process holds {error.lock_file}: wait for it, then run `{COMMAND}` again") from error
    except OSError as error:
        reason = error.strerror or error
        raise BenchError(
            f"nothing can be made in {folder.parent} ({reason}): choose another VDMINI_VBENCH_ENV"
        ) from error
    with held:
        yield
