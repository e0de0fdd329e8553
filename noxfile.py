"""`nox -s tests`, `slow`, `lint`, `docs`, `lowest`, `families`, `rehearsal`, `wheel`, `fake_cuda`, `gpu` and more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
# Another build of torch: VDMINI_CONSTRAINTS=your-constraints.txt nox -s tests
CONSTRAINTS = os.environ.get("VDMINI_CONSTRAINTS", "constraints.txt")

# Of one thread each: see tests/conftest.py.
WORKERS = ("-n", "2", "--dist", "loadfile")
# Tests of what other libraries' engines do.
ENGINE_TESTS = ("tests/vdmini/test_acceleration.py", "tests/vdmini/test_lora.py")
# Files of tests that distil or train, as patterns.
TRAINING = ("*distill*", "run", "*runs", "generated", "interrupts", "text_teacher", "rehearsal", "planted_faults")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Beside the environment, for their own tests alone; alone, since nothing may bring another torch.
    engines = str(Path(session.create_tmp()) / "engines")
    needed = nox.project.dependency_groups(PYPROJECT, "engines")
    session.install("-c", CONSTRAINTS, "--no-deps", "--upgrade", "--target", engines, *needed)
    if not session.posargs:
        session.run("pytest", "-n", "2", *ENGINE_TESTS, env={"PYTHONPATH": engines})
    others = () if session.posargs else (f"--ignore={file}" for file in ENGINE_TESTS)
    session.run("pytest", *WORKERS, "--durations=20", *others, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that `tests` leaves out: whole runs, FSDP, a cluster of Slurm where it is installed."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    session.run("pytest", *WORKERS, "-m", "slow", *session.posargs)


@nox.session
def families(session: nox.Session) -> None:
    """Try every variant of every family, of which the tests take one each, ten random LoRAs for it, and every rule."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Alone, since nothing may bring another torch.
    session.install("-c", CONSTRAINTS, "--no-deps", "peft")
    names = ("transformers", "sample", "prompts", "lora", "every_rule", "distill_families")
    files = (f"tests/vdmini/test_{name}.py" for name in names)
    session.run("pytest", "-n", "2", *files, *session.posargs, env={"VDMINI_FAMILIES": "full"})


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests that train nothing with the least versions that pyproject.toml allows; that torch is gigabytes."""
    least = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
    session.install(*least, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    trainings = (f"--ignore-glob=*/test_{name}.py" for name in TRAINING)
    session.run("pytest", *WORKERS, *trainings, *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions of everything, whatever the constraints; that torch is gigabytes."""
    session.install("--upgrade", "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    session.run("pytest", *WORKERS, *session.posargs)


@nox.session
def fid(session: nox.Session) -> None:
    """Run frame FID through pytorch-fid's own network, with seeded weights."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Alone: what they depend on is here, and nothing may bring another torch.
    session.install("-c", CONSTRAINTS, "--no-deps", "torchvision", "pytorch-fid")
    session.run("pytest", "tests/vdmini_bench/test_fid_network.py", *session.posargs)


@nox.session
def official(session: nox.Session) -> None:
    """Run the official VBench, in an environment made here, and pytorch-fid beside our own code: 2.2 GB, minutes."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Alone: what they depend on is here, and nothing may bring another torch.
    session.install("-c", CONSTRAINTS, "--no-deps", "torchvision", "pytorch-fid")
    settings = {"VDMINI_TEST_VBENCH": "1", "VDMINI_VBENCH_ENV": str(Path(session.create_tmp()) / "vbench")}
    files = ("test_fid_network.py", "vbench/test_vbench_official.py", "vbench/test_vbench_native_official.py")
    session.run("pytest", *(f"tests/vdmini_bench/{file}" for file in files), *session.posargs, env=settings)


@nox.session
def rehearsal(session: nox.Session) -> None:
    """Run every profile of the paper from small files in their published formats to the table, killed and continued."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Alone: what they depend on is here, and nothing may bring another torch.
    session.install("-c", CONSTRAINTS, "--no-deps", "torchao", "torchvision", "pytorch-fid")
    startup = str(Path(__file__).parent / "tests" / "rehearsal" / "startup")
    settings = {"OMP_NUM_THREADS": "1", "VDMINI_REHEARSAL": "full", "PYTHONPATH": startup}
    session.run("pytest", "tests/rehearsal", "-m", "", "-n", "2", "--dist", "load", *session.posargs, env=settings)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a warning, such as a link that leads nowhere, is a failure."""
    session.install("-c", CONSTRAINTS, *nox.project.dependency_groups(PYPROJECT, "docs"))
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"PYTHONPATH": ".", "NO_MKDOCS_2_WARNING": "1"})


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the package into dist/, check it, and run its suites from an environment that has only the wheel."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    built = [*map(str, Path("dist").iterdir())]
    session.run("twine", "check", "--strict", *built)
    home = Path(session.create_tmp()).absolute()
    session.install("-c", CONSTRAINTS, *(path for path in built if path.endswith(".whl")))
    session.chdir(home)
    for suite in ("ucf101", "vbench_t2v", "vbench_i2v"):
        session.run("vdmini-bench", "run", suite, "--profile", "smoke", env={"OMP_NUM_THREADS": "1"})
        session.run("vdmini-bench", "report", "latest", "-o", f"{suite}.html")
    session.run("vdmini-bench", "gate", "latest", "--baseline", "baseline.csv", "--update")
    session.run("vdmini-bench", "gate", "latest", "--baseline", "baseline.csv")


@nox.session
def kills(session: nox.Session) -> None:
    """Kill an embedded run, and one in tasks, at 50 random moments each, or as many as are given after --."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    count, *more = session.posargs or ("50",)
    settings = {"OMP_NUM_THREADS": "1", "VDMINI_KILLS": count}
    tests = "tests/vdmini_bench/test_run.py"
    session.run("pytest", tests, "-s", "-k", "killed", "--timeout", "7200", *more, env=settings)


@nox.session
def reruns(session: nox.Session) -> None:
    """Run the embedded suite from 30 new seeds and gate each run: hours. After --: another number, then key=value."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    count, *changed = session.posargs or ("30",)
    settings = {"VDMINI_RERUNS": count, "VDMINI_RERUN_SETTINGS": "\n".join(changed)}
    tests = "tests/vdmini_bench/test_reruns.py"
    session.run("pytest", tests, "-s", "-k", "embedded_suite", "--timeout", "86400", env=settings)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def fake_cuda(session: nox.Session) -> None:
    """Run what tests/fake_cuda holds with torch's CUDA build and no card, which other sessions skip: 5.5 GB."""
    # The CUDA build of the newest torch tried.
    session.install("torch==2.14.1")
    session.install("torch==2.14.1", "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # That torch has other warnings than those that the other tests are silent about.
    settings = {"OMP_NUM_THREADS": "1"}
    session.run("pytest", "-n", "2", "-W", "default", "tests/fake_cuda", *session.posargs, env=settings)


@nox.session
def gpu(session: nox.Session) -> None:
    """Run what only a GPU can show: `nox -s gpu -- --minutes 9`, with the torch that VDMINI_CONSTRAINTS names."""
    session.install("-c", CONSTRAINTS, "-e", ".[gpu]", *nox.project.dependency_groups(PYPROJECT, "test"))
    session.run("python", "-m", "vdmini_bench.gpu", *session.posargs)
